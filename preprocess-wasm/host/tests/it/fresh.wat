;; A component of the right world that looks whether its memory is that of a new instance. In `tensor`, with an image that
;; begins with F: fills all 12 MiB of it with a pattern. With S: counts what is not as it has to be at the start, and returns
;; three numbers of 32 bits, lowest byte first: words of 8 bytes that should be zero and are not, bytes of the initial data
;; that are others, and pages of memory.
;;
;; Its memory has 6 MiB at the start, of which 4 bytes at 64 KiB and 4 at 5 MiB have initial data.
(module
  (memory (export "memory") 96)
  (data (i32.const 0x10000) "low!")
  (data (i32.const 0x500000) "high")

  ;; An image of at most 8 bytes lies at 1 KiB.
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))

  ;; 7x5 pixels and two empty strings, at 128.
  (func (export "convoy:preprocess/images@0.2.0#probe") (param i32 i32 i64) (result i32)
    (i32.store (i32.const 132) (i32.const 7))
    (i32.store (i32.const 136) (i32.const 5))
    (i32.const 128))

  ;; Takes what is known out of the memory, so that all of it must be zero, and says how many bytes of that are others.
  (func $take_known (result i32)
    (local $wrong i32)
    ;; The image, and the sides that `probe` wrote.
    (i64.store (i32.const 1024) (i64.const 0))
    (i64.store (i32.const 132) (i64.const 0))
    (local.set $wrong (i32.add
      (call $differing (i32.load (i32.const 0x10000)) (i32.const 0x21776f6c))
      (call $differing (i32.load (i32.const 0x500000)) (i32.const 0x68676968))))
    (i32.store (i32.const 0x10000) (i32.const 0))
    (i32.store (i32.const 0x500000) (i32.const 0))
    (local.get $wrong))

  (func $differing (param $is i32) (param $should i32) (result i32)
    (i32.ne (local.get $is) (local.get $should)))

  ;; How many words below `end` are not zero.
  (func $dirty (param $end i32) (result i32)
    (local $at i32) (local $dirty i32)
    (loop $next
      (local.set $dirty (i32.add (local.get $dirty) (i64.ne (i64.load (local.get $at)) (i64.const 0))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
    (local.get $dirty))

  (func (export "convoy:preprocess/images@0.2.0#tensor")
    (param i32 i32 i32 i32 i32 i32) (result i32)
    (local $does i32) (local $wrong i32) (local $dirty i32) (local $bytes i32)
    (local.set $does (i32.load8_u (i32.const 1024)))
    (drop (memory.grow (i32.const 96)))
    (local.set $bytes (i32.mul (memory.size) (i32.const 65536)))
    (if (i32.eq (local.get $does) (i32.const 0x46))
      (then (memory.fill (i32.const 0) (i32.const 0xa5) (local.get $bytes)))
      (else
        (local.set $wrong (call $take_known))
        (local.set $dirty (call $dirty (local.get $bytes)))))
    ;; The answer at 16: no error, 12 bytes at 2048, the placement (0, 0, 1, 1), and features of nothing.
    (memory.fill (i32.const 16) (i32.const 0) (i32.const 64))
    (i32.store (i32.const 24) (i32.const 2048))
    (i32.store (i32.const 28) (i32.const 12))
    (f32.store (i32.const 40) (f32.const 1))
    (f32.store (i32.const 44) (f32.const 1))
    (i32.store (i32.const 2048) (local.get $dirty))
    (i32.store (i32.const 2052) (local.get $wrong))
    (i32.store (i32.const 2056) (memory.size))
    (i32.const 16))

  (func (export "convoy:preprocess/images@0.2.0#preprocess")
    (param i32 i32 i32 i32 i32 i32) (result i32) (unreachable)))
