;; A component of the right world that does what the first byte of the "image" says: `probe` if it is a small letter, else
;; `tensor`. An export's flat signature is the canonical ABI's: the image's address and length, or the options' fields; the
;; address of the result.
;;
;; Its memory: results below 1 KiB, pixels from 2 KiB on, as many as a model of 300x300 takes, the image from 512 KiB on.
(module
  (memory (export "memory") 16)

  ;; What a guest that outlived its image would know of it: how many there were, in a global and in memory.
  (global $images (mut i32) (i32.const 0))

  ;; The first byte of the image, once it was probed.
  (global $does (mut i32) (i32.const 0))

  ;; An instance sees one image, of at most 512 KiB: one place is enough.
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x80000))

  (func $recurse (param i32) (result i32)
    (i32.add (call $recurse (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))

  ;; Writes `ok` of a tensor of `length` bytes at `address` and returns where it is written: discriminant at 0,
  ;; list at 8, placement (0, 0, 1, 1) at 16, features (all zero) at 32.
  (func $answer (param $address i32) (param $length i32) (result i32)
    (i32.store8 (i32.const 16) (i32.const 0))
    (i32.store (i32.const 24) (local.get $address))
    (i32.store (i32.const 28) (local.get $length))
    (f32.store (i32.const 40) (f32.const 1))
    (f32.store (i32.const 44) (f32.const 1))
    (i32.const 16))

  ;; Harm that can be done anywhere.
  (func $harm (param $does i32)
    ;; L: an endless loop.
    (if (i32.eq (local.get $does) (i32.const 0x4c)) (then (loop $again (br $again))))
    ;; M: takes memory until it gets no more, then gives up as an allocator does.
    (if (i32.eq (local.get $does) (i32.const 0x4d))
      (then
        (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
        (unreachable)))
    ;; G: asks for more memory than it may have, goes on without, and fails for another reason.
    (if (i32.eq (local.get $does) (i32.const 0x47))
      (then (drop (memory.grow (i32.const 4096))) (drop (call $recurse (i32.const 0)))))
    ;; A: stops itself, after `probe` asked for more memory than it may have and went on without.
    (if (i32.eq (local.get $does) (i32.const 0x41)) (then (unreachable)))
    ;; R: recursion without end.
    (if (i32.eq (local.get $does) (i32.const 0x52)) (then (drop (call $recurse (i32.const 0)))))
    ;; U: stops itself.
    (if (i32.eq (local.get $does) (i32.const 0x55)) (then (unreachable)))
    ;; O: reads beyond its memory.
    (if (i32.eq (local.get $does) (i32.const 0x4f)) (then (drop (i32.load (i32.const -4))))))

  ;; Writes `ok` of these sides and two empty strings, and returns where: discriminant at 0, sides at 4 and 8.
  (func $info (param $width i32) (param $height i32) (result i32)
    (i32.store (i32.const 132) (local.get $width))
    (i32.store (i32.const 136) (local.get $height))
    (i32.const 128))

  ;; Remembers the first byte.
  (func (export "convoy:preprocess/images@0.2.0#probe")
    (param $image i32) (param $length i32) (param $max_pixels i64) (result i32)
    (local $does i32)
    (local.set $does (i32.load8_u (local.get $image)))
    (global.set $does (local.get $does))
    (if (i32.ge_u (local.get $does) (i32.const 0x61))
      (then (call $harm (i32.sub (local.get $does) (i32.const 0x20)))))
    ;; q: returns a result that lies beyond its memory.
    (if (i32.eq (local.get $does) (i32.const 0x71)) (then (return (i32.const -8))))
    ;; A: see above.
    (if (i32.eq (local.get $does) (i32.const 0x41)) (then (drop (memory.grow (i32.const 4096)))))
    ;; f: says that the format's name has 33 bytes.
    (if (i32.eq (local.get $does) (i32.const 0x66))
      (then (i32.store (i32.const 140) (i32.const 1024)) (i32.store (i32.const 144) (i32.const 33))))
    ;; h: says that the format's name has 2 MiB, which lie in its memory.
    (if (i32.eq (local.get $does) (i32.const 0x68))
      (then
        (drop (memory.grow (i32.const 40)))
        (i32.store (i32.const 140) (i32.const 1024))
        (i32.store (i32.const 144) (i32.const 0x200000))))
    ;; z: an image without pixels.
    (if (i32.eq (local.get $does) (i32.const 0x7a)) (then (return (call $info (i32.const 0) (i32.const 5)))))
    ;; x: says ok to more pixels than are allowed.
    (if (i32.eq (local.get $does) (i32.const 0x78))
      (then (return (call $info (i32.const 60000) (i32.const 60000)))))
    ;; E: many pixels.
    (if (i32.eq (local.get $does) (i32.const 0x45))
      (then (return (call $info (i32.const 5000) (i32.const 5000)))))
    ;; J: as many, of what is called a JPEG. N, T, V: more.
    (if
      (i32.or
        (i32.or (i32.eq (local.get $does) (i32.const 0x4a)) (i32.eq (local.get $does) (i32.const 0x54)))
        (i32.or (i32.eq (local.get $does) (i32.const 0x4e)) (i32.eq (local.get $does) (i32.const 0x56))))
      (then
        (i32.store (i32.const 140) (i32.const 544))
        (i32.store (i32.const 144) (i32.const 4))
        (return
          (call $info
            (select (i32.const 5000) (i32.const 6000) (i32.eq (local.get $does) (i32.const 0x4a)))
            (i32.const 5000)))))
    ;; H: enough pixels for what it returns afterwards.
    (if (i32.eq (local.get $does) (i32.const 0x48))
      (then (return (call $info (i32.const 2000) (i32.const 2000)))))
    (call $info (i32.const 7) (i32.const 5)))

  (func $tensor (export "convoy:preprocess/images@0.2.0#tensor")
    (param $width i32) (param $height i32) (param $fit i32) (param $filter i32) (param $color i32) (param $decode i32)
    (result i32)
    (local $does i32)
    (local.set $does (global.get $does))
    (call $harm (local.get $does))
    ;; P: returns a list that lies beyond its memory.
    (if (i32.eq (local.get $does) (i32.const 0x50))
      (then (return (call $answer (i32.const 0x7fff0000) (i32.const 12)))))
    ;; Q: returns a result that lies beyond its memory.
    (if (i32.eq (local.get $does) (i32.const 0x51)) (then (return (i32.const -8))))
    ;; K: complains at length: of a corrupt image, in 300 KiB.
    (if (i32.eq (local.get $does) (i32.const 0x4b))
      (then
        (i32.store8 (i32.const 16) (i32.const 1))
        (i32.store8 (i32.const 24) (i32.const 3))
        (i32.store (i32.const 28) (i32.const 2048))
        (i32.store (i32.const 32) (i32.const 307200))
        (return (i32.const 16))))
    ;; H: returns a list of 80 MiB that lies in its memory.
    (if (i32.eq (local.get $does) (i32.const 0x48))
      (then
        (drop (memory.grow (i32.const 1300)))
        (return (call $answer (i32.const 1024) (i32.const 0x5000000)))))
    ;; N: cannot do without 300 MiB.
    (if (i32.eq (local.get $does) (i32.const 0x4e))
      (then (if (i32.eq (memory.grow (i32.const 4800)) (i32.const -1)) (then (unreachable)))))
    ;; T: takes 300 MiB, and loops.
    (if (i32.eq (local.get $does) (i32.const 0x54))
      (then (drop (memory.grow (i32.const 4800))) (loop $again (br $again))))
    ;; W: one byte too few.
    (if (i32.eq (local.get $does) (i32.const 0x57))
      (then
        (return (call $answer (i32.const 2048)
          (i32.sub (i32.mul (i32.mul (local.get $width) (local.get $height)) (i32.const 3)) (i32.const 1))))))
    ;; C: counts the images that this instance has seen, and returns them: one byte of each count, then black.
    (if (i32.eq (local.get $does) (i32.const 0x43))
      (then
        (global.set $images (i32.add (global.get $images) (i32.const 1)))
        (i32.store8 (i32.const 2048) (global.get $images))
        ;; In the first page, and in one that was grown: both must be zero at the start.
        (i32.store8 (i32.const 4096) (i32.add (i32.load8_u (i32.const 4096)) (i32.const 1)))
        (drop (memory.grow (i32.const 1)))
        (i32.store8 (i32.const 0x100000) (i32.add (i32.load8_u (i32.const 0x100000)) (i32.const 1)))
        (i32.store8 (i32.const 2049) (i32.load8_u (i32.const 4096)))
        (i32.store8 (i32.const 2050) (i32.load8_u (i32.const 0x100000)))))
    ;; Anything else: a black image.
    (call $answer (i32.const 2048) (i32.mul (i32.mul (local.get $width) (local.get $height)) (i32.const 3))))

  (data (i32.const 544) "JPEG")

  ;; Calls a text a JPEG: its address and length at 8, features (all zero) at 16.
  (data (i32.const 512) "<script>alert(1)</script>")
  (func (export "convoy:preprocess/images@0.2.0#preprocess")
    (param i32 i32 i32 i32 i32 i32) (result i32)
    (i32.store (i32.const 24) (i32.const 512))
    (i32.store (i32.const 28) (i32.const 25))
    (i32.const 16)))
