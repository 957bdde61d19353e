//! A 32-bit Linux: Debian's kernel for i686 with PAE paging, entered in protected mode, with 32-bit programs.

use machine_tests::{Payload, host, load_output, payload, runs_to_its_end};

#[test]
fn a_32_bit_debian_kernel_does_its_loads() {
    let (outcome, _) = runs_to_its_end(&payload(Payload::I386, "wl=boot,fork,cpu n=1"), &host());
    assert!(outcome.console.contains("-686-pae"), "{}", outcome.last_words());
    assert!(load_output(&outcome, "boot").is_empty(), "{}", outcome.last_words());
    assert_eq!(load_output(&outcome, "fork"), ["forks=8"]);
    // SHA-256 of a mebibyte of zeros.
    assert_eq!(
        load_output(&outcome, "cpu"),
        ["30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58  -"]
    );
}
