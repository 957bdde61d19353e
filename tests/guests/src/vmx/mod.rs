//! A minimal VMX harness: one VMCS, one 64-bit guest that shares this image's address space through an EPT.
//!
//! Independent of the product's own VMX code, so that both can be checked against the machine.

pub mod ept;
pub mod fields;
pub mod tables;

use core::{arch::asm, arch::naked_asm, cell::UnsafeCell};

use crate::{
    code::Routine,
    cpu::{self, cpuid, rdmsr},
    traps::{KERNEL_CS, KERNEL_SS, TSS},
};
use fields::*;

const FEATURE_CONTROL: u32 = 0x3a;
const VMX_BASIC: u32 = 0x480;
const EFER: u32 = 0xc000_0080;
const GS_BASE: u32 = 0xc000_0101;

/// Entries of an MSR load or store list.
pub const MSR_LIST: usize = 8;

#[repr(C, align(4096))]
struct Areas {
    vmxon: [u64; 512],
    vmcs: [u64; 512],
    msr_bitmaps: [u64; 512],
    stack: [u64; 512],
    exit_store: [[u64; 2]; MSR_LIST],
    exit_load: [[u64; 2]; MSR_LIST],
    entry_load: [[u64; 2]; MSR_LIST],
}
struct Shared(UnsafeCell<Areas>);
// SAFETY: only the boot processor uses VMX, and `start` hands out one `Vmx`.
unsafe impl Sync for Shared {}
static AREAS: Shared = Shared(UnsafeCell::new(Areas {
    vmxon: [0; 512],
    vmcs: [0; 512],
    msr_bitmaps: [0; 512],
    stack: [0; 512],
    exit_store: [[0; 2]; MSR_LIST],
    exit_load: [[0; 2]; MSR_LIST],
    entry_load: [[0; 2]; MSR_LIST],
}));

/// Why there is no VMX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// CPUID does not report it.
    NoVmx,
    /// Firmware locked it off in IA32_FEATURE_CONTROL.
    Locked,
    /// VMXON failed.
    VmxOn,
}

/// Turns VMX on, once.
pub fn start() -> Result<Vm, Missing> {
    if cpuid(1, 0)[2] & 1 << 5 == 0 {
        return Err(Missing::NoVmx);
    }
    let control = rdmsr(FEATURE_CONTROL).map_err(|_| Missing::NoVmx)?;
    if control & 1 == 0 {
        cpu::wrmsr(FEATURE_CONTROL, control | 5).map_err(|_| Missing::Locked)?;
    } else if control & 4 == 0 {
        return Err(Missing::Locked);
    }
    let areas = AREAS.0.get();
    let revision = rdmsr(VMX_BASIC).map_err(|_| Missing::NoVmx)? & 0x7fff_ffff;
    // SAFETY: the regions are ours; CR0.NE and CR4.VMXE have no bearing on memory.
    let failed = unsafe {
        (*areas).vmxon[0] = revision;
        (*areas).vmcs[0] = revision;
        let failed: u8;
        asm!("mov {t}, cr0", "or {t}, 0x20", "mov cr0, {t}", "mov {t}, cr4", "or {t}, 0x2000", "mov cr4, {t}",
            "vmxon [{p}]", "setbe {f}", t = out(reg) _, p = in(reg) &(&raw const (*areas).vmxon as u64),
            f = out(reg_byte) failed);
        failed
    };
    if failed != 0 {
        return Err(Missing::VmxOn);
    }
    ept::build();
    Ok(Vm { registers: Registers::default(), launched: false })
}

/// General registers of the guest but RSP, as [`run`] keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Registers {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

/// A VM exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Basic exit reason.
    pub reason: u32,
    /// The entry failed after the checks of controls and host state (exit reason bit 31).
    pub entry_failed: bool,
    /// Exit qualification.
    pub qualification: u64,
}

/// VM entry did not happen: VM-instruction error number, 0 without a current VMCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryError(pub u32);

/// The virtual machine, and VMX operation itself.
pub struct Vm {
    /// General registers at the next entry, and after an exit.
    pub registers: Registers,
    launched: bool,
}

/// What the guest runs under beyond the minimum.
#[derive(Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct Controls {
    pub pin: u32,
    pub primary: u32,
    pub secondary: u32,
    pub exit: u32,
    pub entry: u32,
    /// EPT accessed and dirty flags.
    pub ept_accessed_dirty: bool,
}

impl Vm {
    /// A fresh VMCS: the guest will call `routine` in ring 0 with interrupts off and end in VMCALL.
    ///
    /// # Panics
    /// When the processor does not allow a control; the message names it.
    pub fn reset(&mut self, routine: Routine, controls: Controls) {
        let vmcs = AREAS.0.get() as u64 + core::mem::offset_of!(Areas, vmcs) as u64;
        // SAFETY: a VMCS region of our own; nothing of it is cached as launched after VMCLEAR.
        unsafe { asm!("vmclear [{p}]", "vmptrld [{p}]", p = in(reg) &vmcs) };
        self.launched = false;
        self.registers = Registers { rax: routine.address() as usize as u64, ..Registers::default() };
        self.set_controls(controls);
        self.set_host();
        self.set_guest();
    }

    /// Writes the controls, with the bits that must be one.
    pub fn set_controls(&mut self, c: Controls) {
        let always = (PRIMARY_SECONDARY | PRIMARY_MSR_BITMAPS, SECONDARY_EPT);
        self.put(PIN_CONTROLS, adjust(0x48d, c.pin));
        self.put(PRIMARY_CONTROLS, adjust(0x48e, c.primary | always.0));
        self.put(SECONDARY_CONTROLS, adjust(0x48b, c.secondary | always.1));
        self.put(EXIT_CONTROLS, adjust(0x48f, c.exit | EXIT_HOST_64 | EXIT_SAVE_EFER | EXIT_LOAD_EFER));
        self.put(ENTRY_CONTROLS, adjust(0x490, c.entry | ENTRY_GUEST_64 | ENTRY_LOAD_EFER));
        self.put(EPT_POINTER, ept::pointer(c.ept_accessed_dirty));
        self.put(VPID, u64::from(c.secondary & SECONDARY_VPID != 0));
        let areas = AREAS.0.get() as u64;
        self.put(MSR_BITMAPS, areas + core::mem::offset_of!(Areas, msr_bitmaps) as u64);
        self.put(EXIT_MSR_STORE, areas + core::mem::offset_of!(Areas, exit_store) as u64);
        self.put(EXIT_MSR_LOAD, areas + core::mem::offset_of!(Areas, exit_load) as u64);
        self.put(ENTRY_MSR_LOAD, areas + core::mem::offset_of!(Areas, entry_load) as u64);
    }

    fn set_host(&mut self) {
        let (cr0, cr3, cr4, gdt, idt) = system_registers();
        self.put(HOST_CS, KERNEL_CS.into());
        self.put(HOST_SS, KERNEL_SS.into());
        self.put(HOST_TR, TSS.into());
        self.put(HOST_CR0, cr0);
        self.put(HOST_CR3, cr3);
        self.put(HOST_CR4, cr4);
        self.put(HOST_EFER, rdmsr(EFER).expect("EFER"));
        self.put(HOST_GS_BASE, rdmsr(GS_BASE).expect("GS base"));
        self.put(HOST_TR_BASE, tss_base(gdt));
        self.put(HOST_GDTR_BASE, gdt);
        self.put(HOST_IDTR_BASE, idt);
        self.put(HOST_GLOBAL_CTRL, 0);
    }

    fn set_guest(&mut self) {
        let (cr0, cr3, cr4, gdt, idt) = system_registers();
        // ES CS SS DS FS GS LDTR TR
        let rights = [0x1_0000, 0xa09b, 0xc093, 0x1_0000, 0x1_0000, 0x1_0000, 0x1_0000, 0x8b];
        for (n, right) in rights.into_iter().enumerate() {
            let n = 2 * n as u32;
            self.put(GUEST_SELECTORS + n, 0);
            self.put(GUEST_LIMITS + n, 0xffff_ffff);
            self.put(GUEST_RIGHTS + n, right);
            self.put(GUEST_BASES + n, 0);
        }
        self.put(GUEST_CS, KERNEL_CS.into());
        self.put(GUEST_SS, KERNEL_SS.into());
        self.put(GUEST_TR, TSS.into());
        self.put(GUEST_LIMITS + 14, 103);
        self.put(GUEST_TR_BASE, tss_base(gdt));
        self.put(GUEST_GS_BASE, rdmsr(GS_BASE).expect("GS base"));
        self.put(GUEST_GDTR_BASE, gdt);
        self.put(GUEST_GDTR_LIMIT, 63);
        self.put(GUEST_IDTR_BASE, idt);
        self.put(GUEST_IDTR_LIMIT, 4095);
        self.put(GUEST_CR0, cr0);
        self.put(GUEST_CR3, cr3);
        self.put(GUEST_CR4, cr4);
        self.put(GUEST_EFER, rdmsr(EFER).expect("EFER"));
        self.put(GUEST_DEBUGCTL, 0);
        self.put(GUEST_DR7, 0x400);
        self.put(GUEST_RFLAGS, 2);
        self.put(GUEST_RIP, call_address());
        let stack = AREAS.0.get() as u64 + core::mem::offset_of!(Areas, stack) as u64;
        self.put(GUEST_RSP, stack + 4096);
        self.put(VMCS_LINK, u64::MAX);
        // VMCLEAR leaves the fields of the guest before.
        let zero = [
            EXIT_MSR_STORE_COUNT,
            EXIT_MSR_LOAD_COUNT,
            ENTRY_MSR_LOAD_COUNT,
            ENTRY_INTERRUPTION,
            INTERRUPTIBILITY,
            ACTIVITY,
            PENDING_DEBUG,
            EXCEPTION_BITMAP,
            GUEST_GLOBAL_CTRL,
            PREEMPTION_TIMER,
        ];
        for field in zero {
            self.put(field, 0);
        }
    }

    /// Writes a field that cannot hurt the host: guest state, entry fields, controls without addresses.
    ///
    /// # Panics
    /// For host state and for fields that hold addresses of areas.
    pub fn write(&mut self, field: u32, value: u64) {
        let host = matches!(field, 0x0c00..=0x0c0c | 0x2000..=0x201a | 0x6c00..=0x6c16 | HOST_EFER);
        assert!(!host, "field {field:#x} is the harness's own");
        self.put(field, value);
    }

    fn put(&mut self, field: u32, value: u64) {
        let failed: u8;
        // SAFETY: a VMCS of ours is current; which values are good is the caller's business.
        unsafe {
            asm!("vmwrite {f}, {v}", "setbe {e}", f = in(reg) u64::from(field), v = in(reg) value,
                e = out(reg_byte) failed, options(nostack));
        }
        assert!(failed == 0, "VMWRITE of field {field:#x} failed");
    }

    /// Reads a field.
    pub fn read(&self, field: u32) -> u64 {
        let (value, failed): (u64, u8);
        // SAFETY: VMREAD into a register.
        unsafe {
            asm!("vmread {v}, {f}", "setbe {e}", f = in(reg) u64::from(field), v = out(reg) value,
                e = out(reg_byte) failed, options(nostack));
        }
        assert!(failed == 0, "VMREAD of field {field:#x} failed");
        value
    }

    /// Enters the guest and comes back with its exit.
    pub fn enter(&mut self) -> Result<Exit, EntryError> {
        // SAFETY: host state is this kernel's own; the guest runs naked pieces of this library on a stack of its own.
        let failed = unsafe { run(&mut self.registers, self.launched.into()) };
        if failed != 0 {
            return Err(EntryError(if failed == 2 { self.read(INSTRUCTION_ERROR) as u32 } else { 0 }));
        }
        let reason = self.read(EXIT_REASON) as u32;
        let entry_failed = reason >> 31 != 0;
        self.launched |= !entry_failed;
        Ok(Exit { reason: reason & 0xffff, entry_failed, qualification: self.read(QUALIFICATION) })
    }

    /// Moves RIP behind the instruction that exited.
    pub fn skip_instruction(&mut self) {
        let rip = self.read(GUEST_RIP) + self.read(EXIT_INSTRUCTION_LENGTH);
        self.put(GUEST_RIP, rip);
    }

    /// Drops every cached translation.
    pub fn invalidate(&mut self) {
        ept::invalidate();
    }

    /// MSRs that an exit stores; their values are read by [`Self::exit_stored`].
    pub fn store_at_exit(&mut self, msrs: &[u32]) {
        for (n, &msr) in msrs.iter().enumerate() {
            // SAFETY: an area of ours, of MSR_LIST entries (indexing checks).
            unsafe { (*AREAS.0.get()).exit_store[n] = [msr.into(), 0] };
        }
        self.put(EXIT_MSR_STORE_COUNT, msrs.len() as u64);
    }

    /// What the last exit stored as entry `n`.
    pub fn exit_stored(&self, n: usize) -> u64 {
        // SAFETY: as above; volatile since the processor wrote it.
        unsafe { (&raw const (*AREAS.0.get()).exit_store[n][1]).read_volatile() }
    }

    /// MSRs and values that an exit loads. Only such as [`cpu::wrmsr`] takes.
    pub fn load_at_exit(&mut self, values: &[(u32, u64)]) {
        for (n, &(msr, value)) in values.iter().enumerate() {
            assert!(cpu::harmless(msr), "MSR {msr:#x} is not one that a program may load");
            // SAFETY: as above.
            unsafe { (*AREAS.0.get()).exit_load[n] = [msr.into(), value] };
        }
        self.put(EXIT_MSR_LOAD_COUNT, values.len() as u64);
    }

    /// MSRs and values that an entry loads. Only such as [`cpu::wrmsr`] takes.
    pub fn load_at_entry(&mut self, values: &[(u32, u64)]) {
        for (n, &(msr, value)) in values.iter().enumerate() {
            assert!(cpu::harmless(msr), "MSR {msr:#x} is not one that a program may load");
            // SAFETY: as above.
            unsafe { (*AREAS.0.get()).entry_load[n] = [msr.into(), value] };
        }
        self.put(ENTRY_MSR_LOAD_COUNT, values.len() as u64);
    }
}

/// A control word with the wanted bits and those that must be one (SDM vol. 3D appendix A.2).
fn adjust(msr: u32, wanted: u32) -> u64 {
    let allowed = rdmsr(msr).expect("VMX capability MSR");
    let (ones, may) = (allowed as u32, (allowed >> 32) as u32);
    assert!(wanted & !may == 0, "controls {:#x} of capability MSR {msr:#x} are not allowed", wanted & !may);
    u64::from(wanted | ones)
}

/// May the control be one? `bit` of capability MSR `msr`.
pub fn allows(msr: u32, bit: u32) -> bool {
    rdmsr(msr).is_ok_and(|allowed| (allowed >> 32) as u32 & bit == bit)
}

/// CR0, CR3, CR4, bases of GDT and IDT.
fn system_registers() -> (u64, u64, u64, u64, u64) {
    let (cr0, cr3, cr4): (u64, u64, u64);
    let (mut gdt, mut idt) = ([0u16; 5], [0u16; 5]);
    // SAFETY: SGDT and SIDT write ten bytes each; the rest only reads.
    unsafe {
        asm!("mov {0}, cr0", "mov {1}, cr3", "mov {2}, cr4", "sgdt [{3}]", "sidt [{4}]", out(reg) cr0,
            out(reg) cr3, out(reg) cr4, in(reg) &mut gdt, in(reg) &mut idt);
    }
    let base = |t: [u16; 5]| (1..5).rev().fold(0, |value, n| value << 16 | u64::from(t[n]));
    (cr0, cr3, cr4, base(gdt), base(idt))
}

/// Base in the TSS descriptor of the GDT at `gdt`.
fn tss_base(gdt: u64) -> u64 {
    // SAFETY: our own GDT has a 16-byte descriptor there.
    let (low, high) = unsafe {
        let entry = (gdt + u64::from(TSS)) as *const u64;
        (entry.read(), entry.add(1).read())
    };
    (low >> 16 & 0xff_ffff) | (low >> 56) << 24 | high << 32
}

/// Address of the guest's first code, which calls the routine in RAX and ends in VMCALL.
pub fn call_address() -> u64 {
    guest_start as *const () as u64
}

/// The guest's first code: calls the routine in RAX, then VMCALL, for ever.
#[unsafe(naked)]
unsafe extern "C" fn guest_start() {
    naked_asm!("call rax", "2: vmcall", "jmp 2b")
}

/// Loads the guest's registers, enters, and stores them at the exit. 0: an exit; 1: VMfailInvalid; 2: VMfailValid.
#[unsafe(naked)]
unsafe extern "C" fn run(_registers: *mut Registers, _launched: u64) -> u64 {
    naked_asm!(
        "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
        "push rdi",
        "mov eax, {rsp}",
        "vmwrite rax, rsp",
        "lea rcx, [rip + 4f]",
        "mov eax, {rip}",
        "vmwrite rax, rcx",
        "test rsi, rsi",
        "mov rax, [rdi]",
        "mov rcx, [rdi + 8]",
        "mov rdx, [rdi + 16]",
        "mov rbx, [rdi + 24]",
        "mov rbp, [rdi + 32]",
        "mov rsi, [rdi + 40]",
        "mov r8, [rdi + 56]",
        "mov r9, [rdi + 64]",
        "mov r10, [rdi + 72]",
        "mov r11, [rdi + 80]",
        "mov r12, [rdi + 88]",
        "mov r13, [rdi + 96]",
        "mov r14, [rdi + 104]",
        "mov r15, [rdi + 112]",
        "mov rdi, [rdi + 48]",
        "jnz 2f",
        "vmlaunch",
        "jmp 3f",
        "2: vmresume",
        // The entry failed: CF or ZF says how.
        "3: pop rdi",
        "mov eax, 1",
        "mov ecx, 2",
        "cmovz eax, ecx",
        "jmp 5f",
        // A VM exit: RSP is the host's, its top the registers' address.
        "4: push rdi",
        "mov rdi, [rsp + 8]",
        "mov [rdi], rax",
        "pop rax",
        "mov [rdi + 48], rax",
        "mov [rdi + 8], rcx",
        "mov [rdi + 16], rdx",
        "mov [rdi + 24], rbx",
        "mov [rdi + 32], rbp",
        "mov [rdi + 40], rsi",
        "mov [rdi + 56], r8",
        "mov [rdi + 64], r9",
        "mov [rdi + 72], r10",
        "mov [rdi + 80], r11",
        "mov [rdi + 88], r12",
        "mov [rdi + 96], r13",
        "mov [rdi + 104], r14",
        "mov [rdi + 112], r15",
        "pop rdi",
        "xor eax, eax",
        "5:",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
        "ret",
        rsp = const HOST_RSP, rip = const HOST_RIP,
    )
}
