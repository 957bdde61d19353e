//! Kernels of a few instructions in the form of a bzImage: for measuring what one instruction costs, and what a loader costs.

/// Bytes of the part that real mode would run: the boot sector and one more.
const SETUP: usize = 1024;
/// Where the 64-bit entry point lies behind the setup part (the kernel's documentation, "64-bit boot protocol").
const LONG_ENTRY: usize = 0x200;
/// The least size of the code part, bytes.
const LEAST: usize = 4096;

/// A loop in the guest: its name, what precedes it, the instructions of one round, and how many of them are the loop's own.
#[derive(Clone, Copy, Debug)]
pub struct Loop {
    /// What is repeated.
    pub name: &'static str,
    /// Machine code before the loop.
    before: &'static [u8],
    /// Machine code of one round, without the counting; it must keep ESI.
    round: &'static [u8],
    /// Instructions of a round beside the one that is measured: DEC and JNZ included.
    pub overhead: u64,
}

/// CPUID with leaf 0: `xor eax, eax; cpuid`.
pub const CPUID: Loop = Loop { name: "cpuid", before: &[], round: &[0x31, 0xc0, 0x0f, 0xa2], overhead: 3 };
/// OUT to the UART's scratch register: `mov dx, 3ffh; mov al, 5ah` and `out dx, al`.
pub const OUT: Loop =
    Loop { name: "out", before: &[0x66, 0xba, 0xff, 0x03, 0xb0, 0x5a], round: &[0xee], overhead: 2 };
/// RDTSC.
pub const RDTSC: Loop = Loop { name: "rdtsc", before: &[], round: &[0x0f, 0x31], overhead: 2 };

/// `mov dx, 604h; mov ax, 3400h; out dx, ax; 1: hlt; jmp 1b`: SLP_EN with the type of S5, in the guest's PM1a control register.
const POWER_OFF: &[u8] = &[0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, 0xf4, 0xeb, 0xfd];
/// `mov al, 16; out f4h, al`: the emulated machine's exit port, with the code for success.
const EXIT_PORT: &[u8] = &[0xb0, 0x10, 0xe6, 0xf4];

/// A kernel that does `rounds` rounds of a loop in 64-bit mode as a guest, and switches the guest off.
pub fn guest(body: &Loop, rounds: u32) -> Vec<u8> {
    // mov esi, rounds; 1: round; dec esi; jnz 1b
    let back = -(body.round.len() as i8 + 4);
    let count = rounds.to_le_bytes();
    let code =
        [body.before, &[0xbe], &count, body.round, &[0xff, 0xce, 0x75, back as u8], POWER_OFF].concat();
    bzimage(&code, LEAST)
}

/// A kernel that switches itself off at once, as a guest or by itself, and is as long as another.
pub fn nothing(length: usize) -> Vec<u8> {
    bzimage(POWER_OFF, length.saturating_sub(SETUP).max(LEAST))
}

/// A bzImage of the boot protocol 2.12 whose code part has `size` bytes. Its 32-bit entry writes the exit port.
fn bzimage(long_code: &[u8], size: usize) -> Vec<u8> {
    let size = size.next_multiple_of(16);
    let mut image = vec![0; SETUP + size];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]); // setup_sects
    put(0x1f4, &(size as u32 / 16).to_le_bytes()); // syssize
    put(0x1fe, &[0x55, 0xaa]); // boot_flag
    put(0x200, &[0xeb, 0x6a]); // jump over the header
    put(0x202, b"HdrS");
    put(0x206, &0x020c_u16.to_le_bytes()); // version
    put(0x211, &[1]); // loadflags: LOADED_HIGH
    put(0x214, &0x10_0000_u32.to_le_bytes()); // code32_start
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes()); // initrd_addr_max
    put(0x230, &0x20_0000_u32.to_le_bytes()); // kernel_alignment
    put(0x234, &[1, 21]); // relocatable_kernel, min_alignment
    put(0x236, &1_u16.to_le_bytes()); // xloadflags: XLF_KERNEL_64
    put(0x238, &2047_u32.to_le_bytes()); // cmdline_size
    put(0x258, &0x100_0000_u64.to_le_bytes()); // pref_address
    put(0x260, &(size as u32).to_le_bytes()); // init_size
    put(SETUP, EXIT_PORT);
    put(SETUP + LONG_ENTRY, long_code);
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_where_loaders_look() {
        let image = nothing(100_000);
        assert_eq!(image.len(), 100_000_usize.next_multiple_of(16));
        assert_eq!((&image[0x1fe..0x200], &image[0x202..0x206]), (&[0x55, 0xaa][..], &b"HdrS"[..]));
        let size = u32::from_le_bytes(image[0x1f4..0x1f8].try_into().unwrap()) as usize * 16;
        assert_eq!(SETUP + size, image.len());
        assert_eq!(&image[SETUP + LONG_ENTRY..][..POWER_OFF.len()], POWER_OFF);
    }

    #[test]
    fn a_loop_jumps_to_its_beginning() {
        let image = guest(&RDTSC, 7);
        let code = &image[SETUP + LONG_ENTRY..];
        assert_eq!(&code[..11], [0xbe, 7, 0, 0, 0, 0x0f, 0x31, 0xff, 0xce, 0x75, 0xfa]);
        // From behind the JNZ, six bytes back is the RDTSC.
        assert_eq!(code[(11 - 6)..][..2], [0x0f, 0x31]);
    }
}
