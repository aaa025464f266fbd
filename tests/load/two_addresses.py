"""A DNS server that answers every question with the IPv4 addresses given: two_addresses.py ADDRESS... prints where it
listens. Standard library only; RFC 1035, section 4."""

import socket
import struct
import sys

A, IN, TTL = 1, 1, 1


def answer(query, addresses):
    number, _, questions = struct.unpack("!HHH", query[:6])
    end = query.index(b"\0", 12) + 5
    asked, _ = struct.unpack("!HH", query[end - 4 : end])
    records = addresses if asked == A else []
    head = struct.pack("!HHHHHH", number, 0x8580, questions, len(records), 0, 0)
    # The name of each is that of the question, at offset 12.
    body = b"".join(struct.pack("!HHHIH", 0xC00C, A, IN, TTL, 4) + socket.inet_aton(address) for address in records)
    return head + query[12:end] + body


server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 0))
print("127.0.0.1:%d" % server.getsockname()[1], flush=True)
while True:
    query, client = server.recvfrom(512)
    server.sendto(answer(query, sys.argv[1:]), client)
