//! The Lockstep kernel.
fn main() {
    println!("the kernel is built by: cargo xtask build");
}
