;; A component of the right world that answers whatever it is sent: the image's first byte chooses which call answers so,
;; and what follows is laid where the host reads the answer. So every answer that a guest can give can be tried.
(module
  (memory (export "memory") 2)
  ;; The image lies at 1024, and so does the answer, behind its first eight bytes.
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))

  (func (export "convoy:preprocess/images@0.2.0#probe") (param i32 i32 i64) (result i32)
    ;; P: what follows is the answer. Anything else: 7x5 pixels, and two empty strings.
    (if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 0x50)) (then (return (i32.const 1032))))
    (i32.store (i32.const 132) (i32.const 7))
    (i32.store (i32.const 136) (i32.const 5))
    (i32.const 128))

  (func (export "convoy:preprocess/images@0.2.0#tensor") (param i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 1032))

  (func (export "convoy:preprocess/images@0.2.0#preprocess") (param i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 1032)))
