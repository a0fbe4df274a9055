;; Kernels on which metering is measured and ways to run without end.
;; wat2wasm --enable-tail-call --debug-names kernels.wat (wabt 1.0.32) made kernels.wasm.
(module
  (memory (export "memory") 64)
  (type $v (func))
  (type $ii (func (param i32) (result i32)))
  (table funcref (elem $again $odd $even))

  ;; a register loop
  (func (export "lcg") (param $n i32) (result i32)
    (local $x i32)
    (local.set $x (i32.const 12345))
    (loop $l
      (local.set $x (i32.add (i32.mul (local.get $x) (i32.const 1103515245)) (i32.const 12345)))
      (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $x))

  ;; the primes below n, in n bytes at 0
  (func (export "sieve") (param $n i32) (result i32)
    (local $i i32) (local $j i32) (local $c i32)
    (memory.fill (i32.const 0) (i32.const 0) (local.get $n))
    (local.set $i (i32.const 2))
    (loop $outer
      (if (i32.eqz (i32.load8_u (local.get $i)))
        (then
          (local.set $c (i32.add (local.get $c) (i32.const 1)))
          (local.set $j (i32.add (local.get $i) (local.get $i)))
          (block $done
            (loop $in
              (br_if $done (i32.ge_u (local.get $j) (local.get $n)))
              (i32.store8 (local.get $j) (i32.const 1))
              (local.set $j (i32.add (local.get $j) (local.get $i)))
              (br $in)))))
      (br_if $outer (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (local.get $n))))
    (local.get $c))

  ;; m × m matrix product of f64, at 0, 1 MiB and 2 MiB
  (func (export "matrix") (param $m i32) (result i32)
    (local $i i32) (local $j i32) (local $k i32) (local $s f64)
    (loop $li
      (local.set $j (i32.const 0))
      (loop $lj
        (local.set $k (i32.const 0)) (local.set $s (f64.const 0))
        (loop $lk
          (local.set $s (f64.add (local.get $s) (f64.mul
            (f64.load (i32.shl (i32.add (i32.mul (local.get $i) (local.get $m)) (local.get $k)) (i32.const 3)))
            (f64.load offset=1048576 (i32.shl (i32.add (i32.mul (local.get $k) (local.get $m)) (local.get $j)) (i32.const 3))))))
          (br_if $lk (i32.lt_u (local.tee $k (i32.add (local.get $k) (i32.const 1))) (local.get $m))))
        (f64.store offset=2097152 (i32.shl (i32.add (i32.mul (local.get $i) (local.get $m)) (local.get $j)) (i32.const 3)) (local.get $s))
        (br_if $lj (i32.lt_u (local.tee $j (i32.add (local.get $j) (i32.const 1))) (local.get $m))))
      (br_if $li (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (local.get $m))))
    (i32.const 0))

  (func $fib (export "fib") (param $n i32) (result i32)
    (if (result i32) (i32.lt_u (local.get $n) (i32.const 2))
      (then (local.get $n))
      (else (i32.add (call $fib (i32.sub (local.get $n) (i32.const 1)))
                     (call $fib (i32.sub (local.get $n) (i32.const 2)))))))

  ;; a loop of many branches: the Collatz steps of all numbers below n
  (func (export "collatz") (param $n i32) (result i32)
    (local $x i32) (local $steps i32)
    (loop $next
      (local.set $x (local.get $n))
      (block $one
        (loop $step
          (br_if $one (i32.le_u (local.get $x) (i32.const 1)))
          (local.set $steps (i32.add (local.get $steps) (i32.const 1)))
          (if (i32.and (local.get $x) (i32.const 1))
            (then (local.set $x (i32.add (i32.mul (local.get $x) (i32.const 3)) (i32.const 1))))
            (else (local.set $x (i32.shr_u (local.get $x) (i32.const 1)))))
          (br $step)))
      (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $steps))

  ;; calls of small functions in a loop
  (func $leaf (param $x i32) (result i32)
    (i32.xor (i32.mul (local.get $x) (i32.const 31)) (i32.shr_u (local.get $x) (i32.const 7))))
  (func (export "leaves") (param $n i32) (result i32)
    (local $x i32)
    (loop $l
      (local.set $x (i32.add (call $leaf (local.get $x)) (local.get $n)))
      (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $x))

  ;; a bytecode interpreter: br_table in a loop
  (func (export "interpret") (param $n i32) (result i32)
    (local $pc i32) (local $acc i32)
    (i32.store (i32.const 0) (i32.const 0x02010100))
    (i32.store (i32.const 4) (i32.const 0x03020001))
    (loop $loop
      (block $dec (block $xor (block $mul (block $add
        (br_table $add $mul $xor $dec (i32.load8_u (i32.and (local.get $pc) (i32.const 7)))))
        (local.set $acc (i32.add (local.get $acc) (local.get $pc)))
        (local.set $pc (i32.add (local.get $pc) (i32.const 1)))
        (br $loop))
        (local.set $acc (i32.mul (local.get $acc) (i32.const 17)))
        (local.set $pc (i32.add (local.get $pc) (i32.const 1)))
        (br $loop))
        (local.set $acc (i32.xor (local.get $acc) (i32.const 0x5555)))
        (local.set $pc (i32.add (local.get $pc) (i32.const 1)))
        (br $loop))
      (local.set $pc (i32.add (local.get $pc) (i32.const 1)))
      (br_if $loop (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $acc))

  ;; ways to run without end
  (func (export "spin") (loop $l (br $l)))
  (func (export "spin_if") (loop $l (br_if $l (i32.const 1))))
  (func (export "spin_table") (loop $l (block $a (br_table $a $l $l (i32.const 5)))))
  (func (export "spin_param") (i32.const 1) (loop $l (param i32) (br_if $l (i32.const 1)) (drop)))
  (func (export "spin_nested") (loop $a (loop $b (loop $c (br $a)))))
  (func (export "spin_outer") (block $x (loop $a (block $y (loop $b (br_if $y (i32.const 1)) (br $x)) ) (br $a))))
  (func $recurse (export "recurse") (call $recurse))
  (func $ping (export "ping") (param i32) (result i32) (i32.add (call $pong (local.get 0)) (i32.const 1)))
  (func $pong (param i32) (result i32) (i32.add (call $ping (local.get 0)) (i32.const 1)))
  (func $again (type $v) (call_indirect (type $v) (i32.const 0)))
  (func (export "recurse_indirect") (call $again))
  (func $tail (export "tail") (return_call $tail))
  (func $odd (type $ii) (return_call_indirect (type $ii) (i32.add (local.get 0) (i32.const 1)) (i32.const 2)))
  (func $even (type $ii) (return_call_indirect (type $ii) (i32.add (local.get 0) (i32.const 1)) (i32.const 1)))
  (func (export "tail_indirect") (result i32) (call $even (i32.const 0)))
  ;; recursion that branches, so that it takes for ever without going deep
  (func $bush (export "bush") (param $d i32)
    (if (local.get $d) (then
      (call $bush (i32.sub (local.get $d) (i32.const 1)))
      (call $bush (i32.sub (local.get $d) (i32.const 1))))))
  ;; bulk instructions in a loop
  (func (export "fill") (loop $l (memory.fill (i32.const 0) (i32.const 7) (i32.const 4194304)) (br $l)))
  (func (export "grow_nothing") (loop $l (drop (memory.grow (i32.const 0))) (br $l)))

  ;; traps in the midst of things
  (func (export "trap_divide") (result i32)
    (local $n i32)
    (local.set $n (i32.const 1000))
    (loop $l (result i32)
      (drop (i32.div_u (i32.const 5) (local.get $n)))
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br $l)))
  (func $down (param $n i32) (result i32)
    (if (i32.eqz (local.get $n)) (then (unreachable)))
    (i32.add (call $down (i32.sub (local.get $n) (i32.const 1))) (i32.const 1)))
  (func (export "trap_deep") (result i32) (call $down (i32.const 1000)))
  (func (export "trap_bounds")
    (local $p i32)
    (loop $l
      (i32.store (local.get $p) (i32.const 1))
      (local.set $p (i32.add (local.get $p) (i32.const 4096)))
      (br $l)))
  (func (export "trap_fill")
    (memory.fill (i32.const 0) (i32.const 1) (i32.const 1000000))
    (memory.fill (i32.const 0) (i32.const 1) (i32.const -1)))
  (func (export "trap_indirect") (call_indirect (type $v) (i32.const 1)))
)
