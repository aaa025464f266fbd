"""Writers of image formats, by the standard library alone and with the same bytes on every machine.

They write what no well-behaved library would. Nothing here computes with floating point, and nothing is compressed by
zlib, whose output differs between versions.
"""
