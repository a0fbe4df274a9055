//! Gives the linker the size of the stack, of which src/text.rs knows.

fn main() {
    println!("cargo::rustc-link-arg-cdylib=-zstack-size={}", 2 << 20);
}
