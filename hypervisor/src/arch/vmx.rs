//! What VMX needs of the processor itself: CPUID and MSRs as facts, VMXON, the current VMCS, invalidations, the host's
//! own state for the VMCS.

use super::physical::Pages;
use super::probe::read_msr;
use super::{fpu, gdt, percpu};
use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use raw_cpuid::CpuId;
use raw_cpuid::native_cpuid::cpuid_count;
use vmx::caps::{Capabilities, msr};
use vmx::errors::VmFail;
use vmx::instructions::{self, CurrentVmcs, VpidScope};
use vmx::requirements::{FEATURE_LOCKED, FEATURE_VMX, Facts};
use x86_64::instructions::tables::{sgdt, sidt};
use x86_64::registers::control::{Cr0, Cr3, Cr4, Efer};
use x86_64::registers::model_specific::Msr;
use x86_64::structures::DescriptorTablePointer;

/// By processor: it is in VMX root operation.
static IN_ROOT: [AtomicBool; percpu::MAX_CPUS] = [const { AtomicBool::new(false) }; percpu::MAX_CPUS];

/// By processor: physical address of the VMCS that somebody has loaded; 0 = none.
static CURRENT: [AtomicU64; percpu::MAX_CPUS] = [const { AtomicU64::new(0) }; percpu::MAX_CPUS];

/// MSRs that a guest uses directly and that no VMCS field holds: IA32_STAR, LSTAR, CSTAR, FMASK, KERNEL_GS_BASE, and the
/// last, which not every processor has, TSC_AUX. The kernel uses none of them.
pub const GUEST_MSRS: [u32; 6] = [0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0102, TSC_AUX];

const TSC_AUX: u32 = 0xc000_0103;

const PAT: u32 = 0x277;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;

/// What CPUID and the MSRs say of this processor.
pub fn facts() -> Facts {
    let root = cpuid_count(0, 0);
    let leaf = |number: u32| (root.eax >= number).then(|| cpuid_count(number, 0));
    let mut vendor = [0; 12];
    for (bytes, word) in vendor.chunks_exact_mut(4).zip([root.ebx, root.edx, root.ecx]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let one = cpuid_count(1, 0);
    let has_vmx = one.ecx & 1 << 5 != 0;
    Facts {
        vendor,
        signature: one.eax,
        features: one.ecx,
        extended_features: leaf(7).map_or(0, |l| l.ebx),
        core_type: leaf(0x1a).map_or(0, |l| l.eax),
        perfmon: leaf(0xa).map_or([0; 4], |l| [l.eax, l.ebx, l.ecx, l.edx]),
        feature_control: has_vmx.then(|| read_msr(msr::FEATURE_CONTROL)).flatten(),
        capabilities: has_vmx.then(|| Capabilities::from_reader(read_msr).ok()).flatten(),
    }
}

/// CPUID of this processor: EAX, EBX, ECX, EDX.
pub fn cpuid(leaf: u32, sub: u32) -> [u32; 4] {
    let answer = cpuid_count(leaf, sub);
    [answer.eax, answer.ebx, answer.ecx, answer.edx]
}

/// Whether this processor is in VMX root operation.
pub fn in_root() -> bool {
    IN_ROOT[percpu::number()].load(Ordering::Relaxed)
}

/// Why VMX root operation cannot be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootError {
    /// IA32_FEATURE_CONTROL is locked with VMX off.
    Locked,
    /// VMXON failed.
    Failed(VmFail),
}

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => f.write_str("IA32_FEATURE_CONTROL is locked with VMX off"),
            Self::Failed(error) => write!(f, "VMXON: {error}"),
        }
    }
}

/// Puts this processor into VMX root operation for good. `region` = a page of zeros, the VMXON region from now on. If the
/// firmware has left IA32_FEATURE_CONTROL open, VMX is switched on in it and it is locked.
///
/// # Errors
/// See [`RootError`].
pub fn enter_root(caps: &Capabilities, mut region: Pages) -> Result<(), RootError> {
    if in_root() {
        return Ok(());
    }
    // SAFETY: the MSR exists on every processor with VMX, which the capabilities prove.
    let control = unsafe { Msr::new(msr::FEATURE_CONTROL).read() };
    match (control & FEATURE_LOCKED != 0, control & FEATURE_VMX != 0) {
        (true, false) => return Err(RootError::Locked),
        (true, true) => {}
        // SAFETY: it is not locked, so it may be written; both bits exist with VMX.
        (false, _) => unsafe { Msr::new(msr::FEATURE_CONTROL).write(control | FEATURE_LOCKED | FEATURE_VMX) },
    }
    region.words_mut()[0] = u64::from(caps.basic.revision());
    // SAFETY: 1. The bits added to CR0 (NE) and CR4 (VMXE) are what the processor demands and change nothing for code
    // without FPU and without SMX. 2. VMXON's conditions hold: level 0, 64-bit mode, CR4.VMXE, FEATURE_CONTROL, and the
    // region is an owned page that starts with the revision and is never used again (its `Pages` is never given back).
    let result = unsafe {
        Cr0::write_raw(caps.host_cr0(Cr0::read_raw()));
        Cr4::write_raw(caps.host_cr4(Cr4::read_raw()));
        instructions::vmxon(region.address())
    };
    result.map_err(RootError::Failed)?;
    fpu::init();
    IN_ROOT[percpu::number()].store(true, Ordering::Relaxed);
    Ok(())
}

fn assert_root() {
    assert!(in_root(), "a VMX instruction outside VMX root operation");
}

/// Writes the revision into a VMCS region (a page of zeros) and makes it clear.
///
/// # Errors
/// VMfail.
pub fn initialize_vmcs(caps: &Capabilities, region: &mut Pages) -> Result<(), VmFail> {
    assert_root();
    region.words_mut()[0] = u64::from(caps.basic.revision());
    // SAFETY: in VMX root operation (asserted); the region is an owned page with the revision.
    unsafe { instructions::vmclear(region.address()) }
}

/// A VMCS that is current on this processor. Dropping it makes it clear, so that another processor may load it.
#[derive(Debug)]
pub struct Loaded {
    vmcs: CurrentVmcs,
    region: u64,
}

impl Loaded {
    /// To read and write fields.
    pub const fn vmcs(&self) -> &CurrentVmcs {
        &self.vmcs
    }
    /// To read and write fields.
    pub const fn vmcs_mut(&mut self) -> &mut CurrentVmcs {
        &mut self.vmcs
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: this processor is in VMX root operation (it never leaves), and the region was current until now.
        let cleared = unsafe { instructions::vmclear(self.region) };
        CURRENT[percpu::number()].store(0, Ordering::Relaxed);
        assert!(cleared.is_ok(), "VMCLEAR: {cleared:?}");
    }
}

/// Makes a VMCS, initialized before, current on this processor.
///
/// # Errors
/// VMfail.
///
/// # Panics
/// Another one is loaded.
pub fn load_vmcs(region: &Pages) -> Result<Loaded, VmFail> {
    assert_root();
    let current = &CURRENT[percpu::number()];
    assert!(current.load(Ordering::Relaxed) == 0, "a VMCS is loaded on this processor already");
    // SAFETY: 1. In VMX root operation. 2. The region is an owned page with the revision, cleared when it was last used,
    // so no processor has it active.
    unsafe { instructions::vmptrld(region.address())? };
    current.store(region.address(), Ordering::Relaxed);
    // SAFETY: it is current, and `CURRENT` keeps anybody else from having another value for this processor.
    let vmcs = unsafe { CurrentVmcs::assume() };
    Ok(Loaded { vmcs, region: region.address() })
}

/// Shows the VMCS that is current on this processor, if any, to `show`. For the last words: whoever held it does not go
/// on.
pub fn with_current_vmcs<R>(show: impl FnOnce(&CurrentVmcs) -> R) -> Option<R> {
    if !in_root() || CURRENT[percpu::number()].load(Ordering::Relaxed) == 0 {
        return None;
    }
    // SAFETY: there is a current VMCS; it is only read, and its owner has stopped.
    Some(show(&unsafe { CurrentVmcs::assume() }))
}

/// The host's state for the VMCS, as it is loaded on this processor now.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct HostState {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub pat: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub task_base: u64,
    pub gdt_base: u64,
    pub idt_base: u64,
}

/// The host's state for the VMCS.
///
/// # Panics
/// Before this processor has its own descriptor table.
pub fn host_state() -> HostState {
    let base = |table: DescriptorTablePointer| table.base.as_u64();
    // SAFETY: every processor with long mode has these MSRs; reading changes nothing.
    let read = |number| unsafe { Msr::new(number).read() };
    HostState {
        cr0: Cr0::read_raw(),
        cr3: Cr3::read().0.start_address().as_u64(),
        cr4: Cr4::read_raw(),
        efer: Efer::read_raw(),
        pat: read(PAT),
        fs_base: read(FS_BASE),
        gs_base: read(GS_BASE),
        task_base: gdt::task_address().expect("this processor has a task state"),
        gdt_base: base(sgdt()),
        idt_base: base(sidt()),
    }
}

/// Drops all translations made through this EPT pointer, on this processor. Nothing if it is not in VMX operation yet: a
/// processor's translations start empty.
pub fn invalidate_ept(pointer: u64) {
    if in_root() {
        // SAFETY: in VMX root operation; single-context INVEPT is one of the requirements.
        let result = unsafe { instructions::invept_single(pointer) };
        assert!(result.is_ok(), "INVEPT {pointer:#x}: {result:?}");
    }
}

/// Drops all translations of a VPID, on this processor.
pub fn invalidate_vpid(vpid: u16) {
    assert_root();
    // SAFETY: in VMX root operation; single-context INVVPID is one of the requirements.
    let result = unsafe { instructions::invvpid(vpid, VpidScope::Single) };
    assert!(result.is_ok(), "INVVPID {vpid}: {result:?}");
}

/// Drops the translations of one linear address (canonical) of a VPID, on this processor, which has that kind of INVVPID.
pub fn invalidate_address(vpid: u16, linear: u64) {
    assert_root();
    // SAFETY: in VMX root operation; the caller has looked at the capabilities.
    let result = unsafe { instructions::invvpid(vpid, VpidScope::Address(linear)) };
    assert!(result.is_ok(), "INVVPID {vpid} {linear:#x}: {result:?}");
}

/// Drops all translations of a VPID but the global ones, on this processor, which has that kind of INVVPID.
pub fn invalidate_vpid_keeping_globals(vpid: u16) {
    assert_root();
    // SAFETY: in VMX root operation; the caller has looked at the capabilities.
    let result = unsafe { instructions::invvpid(vpid, VpidScope::SingleKeepingGlobals) };
    assert!(result.is_ok(), "INVVPID {vpid}, not the globals: {result:?}");
}

/// Runs the host's NMI handler after an exit by NMI: its IRET ends the blocking of NMIs that the exit began.
pub fn deliver_nmi() {
    // SAFETY: vector 2 has a gate and a stack of its own.
    unsafe { asm!("int 2") }
}

/// Loads DR0 to DR3. DR7 is in the VMCS; exits switch it off, so the host never meets a breakpoint.
pub fn set_breakpoint_addresses(addresses: [u64; 4]) {
    // SAFETY: level 0; DR7 disables all breakpoints while the host runs.
    unsafe {
        asm!("mov dr0, {}", in(reg) addresses[0], options(nomem, nostack, preserves_flags));
        asm!("mov dr1, {}", in(reg) addresses[1], options(nomem, nostack, preserves_flags));
        asm!("mov dr2, {}", in(reg) addresses[2], options(nomem, nostack, preserves_flags));
        asm!("mov dr3, {}", in(reg) addresses[3], options(nomem, nostack, preserves_flags));
    }
}

/// DR6.
pub fn dr6() -> u64 {
    let value;
    // SAFETY: level 0; reading changes nothing.
    unsafe { asm!("mov {}, dr6", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Loads DR6.
pub fn set_dr6(value: u64) {
    let value = value & 0xffff_ffff;
    // SAFETY: level 0, the upper half is zero; DR6 only reports, and the host does not use it.
    unsafe { asm!("mov dr6, {}", in(reg) value, options(nomem, nostack, preserves_flags)) }
}

/// Those of [`GUEST_MSRS`] that this processor has.
pub fn guest_msrs() -> &'static [u32] {
    let has_aux =
        CpuId::new().get_extended_processor_and_feature_identifiers().is_some_and(|f| f.has_rdtscp());
    &GUEST_MSRS[..if has_aux { GUEST_MSRS.len() } else { GUEST_MSRS.len() - 1 }]
}

/// Loads [`GUEST_MSRS`].
pub fn load_guest_msrs(values: [u64; GUEST_MSRS.len()]) {
    for (number, value) in guest_msrs().iter().zip(values) {
        // SAFETY: the processor has these MSRs, and the kernel uses none of them: no SYSCALL, no SWAPGS, no RDTSCP. The
        // values were read from them, or are zeros, so they are canonical.
        unsafe { Msr::new(*number).write(value) };
    }
}

/// Reads [`GUEST_MSRS`]; 0 for what there is not.
pub fn save_guest_msrs() -> [u64; GUEST_MSRS.len()] {
    let mut values = [0; GUEST_MSRS.len()];
    for (value, number) in values.iter_mut().zip(guest_msrs()) {
        // SAFETY: as above; reading changes nothing.
        *value = unsafe { Msr::new(*number).read() };
    }
    values
}

/// The guest's IA32_TSC_AUX, for RDTSCP, which is there.
pub fn guest_tsc_aux() -> u64 {
    // SAFETY: only a processor with RDTSCP exits for it; reading changes nothing.
    unsafe { Msr::new(TSC_AUX).read() }
}
