//! A program for the processor that the tests run on: executes one instruction after the other, each from registers and
//! memory that were set for it, and writes down what came of it. It is made byte by byte: an ELF file and its machine code.
#![allow(missing_docs)]

use std::io::Read;
use std::process::{Command, Stdio};

/// Where the code is.
const CODE: u64 = 0x1000_0000;
/// The page that instructions work on. Nothing is mapped around it.
pub const ARENA: u64 = 0x2000_0000;
/// What the page begins with, each time.
const PATTERN: u64 = 0x2001_0000;
/// Cells of the program's own.
const CELLS: u64 = 0x2002_0000;
const CELL_NEXT: u64 = CELLS;
const CELL_RESULT: u64 = CELLS + 8;
const CELL_ACTION: u64 = CELLS + 0x40;
const CELL_STACK: u64 = CELLS + 0x80;
const SIGNAL_STACK: u64 = 0x2003_0000;
const STACK_TOP: u64 = 0x2005_0000;
const RESULTS: u64 = 0x2100_0000;

pub const PAGE: usize = 4096;
/// A result: 16 registers, RFLAGS, trap number + 1 (0: none), error code, CR2, the arena.
const RESULT: usize = 20 * 8 + PAGE;

/// One instruction and what it starts from.
#[derive(Clone, Debug)]
pub struct Case {
    /// In 32-bit compatibility mode.
    pub compatibility: bool,
    pub gpr: [u64; 16],
    pub flags: u64,
    pub bytes: Vec<u8>,
    /// Where the last four bytes before `immediate` bytes at the end are a displacement from the next instruction:
    /// the address that is meant.
    pub relative: Option<(u64, usize)>,
    /// Where it stands; set when the program is made.
    pub address: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Native {
    pub gpr: [u64; 16],
    pub flags: u64,
    /// Vector, error code, CR2.
    pub trap: Option<(u64, u64, u64)>,
    pub arena: Vec<u8>,
}

#[derive(Default)]
struct Assembler(Vec<u8>);

impl Assembler {
    fn here(&self) -> u64 {
        CODE + self.0.len() as u64
    }
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
    fn mov_imm(&mut self, register: u8, value: u64) {
        self.bytes(&[0x48 | register >> 3, 0xb8 | register & 7]);
        self.bytes(&value.to_le_bytes());
    }
    /// `mov [address], register`, an absolute address below 2 GiB.
    fn store(&mut self, register: u8, address: u64) {
        self.bytes(&[0x48 | (register >> 3) << 2, 0x89, 0x04 | (register & 7) << 3, 0x25]);
        self.bytes(&(address as u32).to_le_bytes());
    }
    /// `mov qword [address], value`, 31 bits.
    fn store_imm(&mut self, address: u64, value: u64) {
        self.bytes(&[0x48, 0xc7, 0x04, 0x25]);
        self.bytes(&(address as u32).to_le_bytes());
        self.bytes(&(value as u32).to_le_bytes());
    }
    fn copy_page(&mut self, from: u64, to: u64) {
        self.mov_imm(6, from);
        self.mov_imm(7, to);
        self.mov_imm(1, PAGE as u64 / 8);
        self.bytes(&[0xf3, 0x48, 0xa5]);
    }
    fn system_call(&mut self, number: u64, arguments: &[u64]) {
        for (register, value) in [7_u8, 6, 2, 10].into_iter().zip(arguments) {
            self.mov_imm(register, *value);
        }
        self.mov_imm(0, number);
        self.bytes(&[0x0f, 0x05]);
    }

    /// Handlers for what instructions can raise, on a stack of their own.
    fn install_handlers(&mut self) {
        // jmp over the handler: rel32, patched.
        self.bytes(&[0xe9, 0, 0, 0, 0]);
        let handler = self.here();
        // rdx = ucontext; its registers begin at 40: RIP 16, CS 18, error 19, trap 20, CR2 22.
        self.bytes(&[0x48, 0x8b, 0x04, 0x25]);
        self.bytes(&(CELL_RESULT as u32).to_le_bytes());
        let load_rcx = |at: u32| [&[0x48, 0x8b, 0x8a][..], &(40 + 8 * at).to_le_bytes()].concat();
        let save_rcx = |slot: u32| [&[0x48, 0x89, 0x88][..], &(8 * slot).to_le_bytes()].concat();
        self.bytes(&load_rcx(20));
        self.bytes(&[0x48, 0xff, 0xc1]);
        self.bytes(&save_rcx(17));
        self.bytes(&load_rcx(19));
        self.bytes(&save_rcx(18));
        self.bytes(&load_rcx(22));
        self.bytes(&save_rcx(19));
        self.bytes(&[0x48, 0x8b, 0x0c, 0x25]);
        self.bytes(&(CELL_NEXT as u32).to_le_bytes());
        self.bytes(&[0x48, 0x89, 0x8a]);
        self.bytes(&(40_u32 + 8 * 16).to_le_bytes());
        // mov word [rdx + CS], 33h
        self.bytes(&[0x66, 0xc7, 0x82]);
        self.bytes(&(40_u32 + 8 * 18).to_le_bytes());
        self.bytes(&[0x33, 0x00, 0xc3]);
        let restorer = self.here();
        self.bytes(&[0xb8, 15, 0, 0, 0, 0x0f, 0x05]);
        let over = (self.here() - handler) as u32;
        let at = (handler - CODE) as usize - 4;
        self.0[at..at + 4].copy_from_slice(&over.to_le_bytes());
        // DS and ES are null in a 64-bit program; 32-bit code needs them.
        self.bytes(&[0xb8, 0x2b, 0, 0, 0, 0x8e, 0xd8, 0x8e, 0xc0]);
        self.mov_imm(4, STACK_TOP);
        for (n, value) in [SIGNAL_STACK, 0, 0x1_0000].into_iter().enumerate() {
            self.store_imm(CELL_STACK + 8 * n as u64, value);
        }
        self.system_call(131, &[CELL_STACK, 0]);
        // SA_SIGINFO | SA_RESTORER | SA_ONSTACK | SA_NODEFER
        for (n, value) in [handler, 0x4c00_0004, restorer, 0].into_iter().enumerate() {
            self.store_imm(CELL_ACTION + 8 * n as u64, value);
        }
        for signal in [4, 5, 7, 8, 11] {
            self.system_call(13, &[signal, CELL_ACTION, 0, 8]);
        }
    }

    fn case(&mut self, case: &mut Case, number: usize) {
        let result = RESULTS + (number * RESULT) as u64;
        self.copy_page(PATTERN, ARENA);
        self.store_imm(CELL_RESULT, result);
        self.mov_imm(0, result);
        // push flags; popf
        self.bytes(&[0x68]);
        self.bytes(&(case.flags as u32).to_le_bytes());
        let next_cell = self.0.len() + 8;
        self.store_imm(CELL_NEXT, 0);
        self.bytes(&[0x9d]);
        for (n, value) in case.gpr.iter().enumerate() {
            self.mov_imm(n as u8, *value);
        }
        // The targets of the two far jumps stand in the code, before the first one.
        if case.compatibility {
            // Aligned, for AC may be set.
            let padding = (14 - self.0.len() % 8) % 8;
            self.0.resize(self.0.len() + padding, 0x90);
            self.bytes(&[0xeb, 6]);
            assert!(self.here().is_multiple_of(8));
            let pointer = self.here();
            let target = pointer + 6 + 7;
            self.bytes(&(target as u32).to_le_bytes());
            self.bytes(&[0x23, 0, 0xff, 0x2c, 0x25]);
            self.bytes(&(pointer as u32).to_le_bytes());
        }
        case.address = self.here();
        if let Some((target, immediate)) = case.relative {
            let next = case.address + case.bytes.len() as u64;
            let at = case.bytes.len() - immediate - 4;
            let displacement = target.wrapping_sub(next) as u32;
            case.bytes[at..at + 4].copy_from_slice(&displacement.to_le_bytes());
        }
        self.bytes(&case.bytes);
        if case.compatibility {
            let after = self.here() + 7;
            self.bytes(&[0xea]);
            self.bytes(&(after as u32).to_le_bytes());
            self.bytes(&[0x33, 0]);
        }
        let after = self.here() as u32;
        self.0[next_cell..next_cell + 4].copy_from_slice(&after.to_le_bytes());
        for n in 0..16 {
            self.store(n, result + 8 * u64::from(n));
        }
        self.mov_imm(4, STACK_TOP);
        // pushf; pop rax; flags as usual; keep rax
        self.bytes(&[0x9c, 0x58, 0x6a, 0x02, 0x9d]);
        self.store(0, result + 128);
        self.copy_page(ARENA, result + 160);
    }
}

/// An ELF file with these segments: address, bytes in the file, bytes in memory, all of them with all rights.
fn elf(segments: &[(u64, &[u8], u64)]) -> Vec<u8> {
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |file: &mut Vec<u8>, value: u16| file.extend_from_slice(&value.to_le_bytes());
    let word = |file: &mut Vec<u8>, value: u32| file.extend_from_slice(&value.to_le_bytes());
    let long = |file: &mut Vec<u8>, value: u64| file.extend_from_slice(&value.to_le_bytes());
    half(&mut file, 2);
    half(&mut file, 62);
    word(&mut file, 1);
    long(&mut file, CODE);
    long(&mut file, 64);
    long(&mut file, 0);
    word(&mut file, 0);
    for value in [64, 56, segments.len() as u16, 0, 0, 0] {
        half(&mut file, value);
    }
    let mut offset = PAGE as u64;
    for (address, bytes, memory) in segments {
        word(&mut file, 1);
        word(&mut file, 7);
        for value in [offset, *address, *address, bytes.len() as u64, *memory, PAGE as u64] {
            long(&mut file, value);
        }
        offset += (bytes.len() as u64).next_multiple_of(PAGE as u64);
    }
    for (_, bytes, _) in segments {
        file.resize(file.len().next_multiple_of(PAGE), 0);
        file.extend_from_slice(bytes);
    }
    file
}

/// Whether an access there, or a little below, could hit the program itself or what the system has mapped for it.
pub fn is_own(address: u64, cases: usize) -> bool {
    let near = |start: u64, length: u64| (start - 16..start + length).contains(&address);
    near(CODE, 0x100_0000)
        || near(PATTERN, STACK_TOP - PATTERN)
        || near(RESULTS, (cases * RESULT) as u64)
        || (0x5000_0000_0000..1 << 47).contains(&address)
}

/// Gives every case the address it will have.
pub fn place(cases: &mut [Case]) {
    let mut code = Assembler::default();
    code.install_handlers();
    for (number, case) in cases.iter_mut().enumerate() {
        code.case(case, number);
    }
}

/// Executes the cases on this machine. Each begins with `pattern` in the arena.
pub fn run(cases: &mut [Case], pattern: &[u8]) -> std::io::Result<Vec<Native>> {
    let mut code = Assembler::default();
    code.install_handlers();
    for (number, case) in cases.iter_mut().enumerate() {
        code.case(case, number);
    }
    let size = cases.len() * RESULT;
    code.system_call(1, &[1, RESULTS, size as u64]);
    code.system_call(231, &[0]);
    let file = elf(&[
        (CODE, &code.0, code.0.len() as u64),
        (ARENA, &[], PAGE as u64),
        (PATTERN, pattern, PAGE as u64),
        (CELLS, &[], STACK_TOP - CELLS),
        (RESULTS, &[], size as u64),
    ]);
    let output = execute(&file)?;
    if output.len() != size {
        return Err(std::io::Error::other(format!("{} bytes of results, {size} expected", output.len())));
    }
    Ok(output.chunks(RESULT).map(native).collect())
}

fn execute(file: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("emulate-native-{}-{number}", std::process::id());
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, file)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
    let mut child = Command::new(&path).stdout(Stdio::piped()).stdin(Stdio::null()).spawn()?;
    let mut output = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut output)?;
    let status = child.wait()?;
    if !status.success() {
        return Err(std::io::Error::other(format!("{} ended with {status}", path.display())));
    }
    std::fs::remove_file(&path)?;
    Ok(output)
}

fn native(bytes: &[u8]) -> Native {
    let slot = |n: usize| u64::from_le_bytes(bytes[8 * n..8 * n + 8].try_into().unwrap());
    let mut gpr = [0; 16];
    for (n, value) in gpr.iter_mut().enumerate() {
        *value = slot(n);
    }
    let trap = slot(17).checked_sub(1).map(|vector| (vector, slot(18), slot(19)));
    Native { gpr, flags: slot(16), trap, arena: bytes[160..].to_vec() }
}
