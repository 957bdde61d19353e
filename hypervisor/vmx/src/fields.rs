//! VMCS fields as typed constants (SDM vol. 3C, appendix B).
//!
//! A field is a [`Field<T, A>`]: `T` gives its width and what a read returns, `A` whether a write exists.
//! The encoding itself carries width and kind (appendix B, table B-1); the tests hold the two against each other.

use core::marker::PhantomData;

/// Width of a field as bits 14:13 of its encoding say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 16 bits.
    Word,
    /// 64 bits on every processor.
    Quad,
    /// 32 bits.
    Long,
    /// As wide as a linear address: 64 bits on every processor this runs on.
    Natural,
}

/// The area a field belongs to, as bits 11:10 of its encoding say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// VM-execution, VM-exit and VM-entry controls.
    Control,
    /// VM-exit information, read-only.
    ExitInformation,
    /// Guest state.
    Guest,
    /// Host state.
    Host,
}

/// What a field holds: its width, and the type that a read returns.
pub trait FieldType {
    /// The value as Rust sees it.
    type Value: Copy;
    /// The width the encoding must carry.
    const WIDTH: Width;
    /// The value in what VMREAD returned.
    fn from_raw(raw: u64) -> Self::Value;
    /// What VMWRITE must store.
    fn into_raw(value: Self::Value) -> u64;
}

/// A field as wide as a linear address; read and written as `u64`.
#[derive(Clone, Copy, Debug)]
pub enum Natural {}

macro_rules! plain_field_type {
    ($marker:ty, $value:ty, $width:ident) => {
        impl FieldType for $marker {
            type Value = $value;
            const WIDTH: Width = Width::$width;
            fn from_raw(raw: u64) -> $value {
                // The processor clears the bits beyond the field's width (VMREAD), so nothing is lost here.
                raw as $value
            }
            fn into_raw(value: $value) -> u64 {
                u64::from(value)
            }
        }
    };
}
plain_field_type!(u16, u16, Word);
plain_field_type!(u32, u32, Long);
plain_field_type!(u64, u64, Quad);
plain_field_type!(Natural, u64, Natural);

/// Whether a field can be written.
pub trait Access {
    /// False for VM-exit information.
    const WRITABLE: bool;
}
/// VM-exit information: no write exists.
#[derive(Clone, Copy, Debug)]
pub enum ReadOnly {}
/// Everything else.
#[derive(Clone, Copy, Debug)]
pub enum ReadWrite {}
impl Access for ReadOnly {
    const WRITABLE: bool = false;
}
impl Access for ReadWrite {
    const WRITABLE: bool = true;
}

/// One VMCS field.
#[derive(Debug)]
pub struct Field<T: FieldType, A: Access> {
    encoding: u32,
    name: &'static str,
    kind: PhantomData<fn() -> (T, A)>,
}

impl<T: FieldType, A: Access> Clone for Field<T, A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: FieldType, A: Access> Copy for Field<T, A> {}

impl<T: FieldType, A: Access> Field<T, A> {
    const fn new(encoding: u32, name: &'static str) -> Self {
        Self { encoding, name, kind: PhantomData }
    }

    /// The encoding that VMREAD and VMWRITE take.
    pub const fn encoding(self) -> u32 {
        self.encoding
    }

    /// The field's name, as the constant spells it.
    pub const fn name(self) -> &'static str {
        self.name
    }
}

/// What the list of all fields knows of one of them.
#[derive(Clone, Copy, Debug)]
pub struct FieldInfo {
    /// The encoding that VMREAD takes.
    pub encoding: u32,
    /// The constant's name.
    pub name: &'static str,
    /// The width its Rust type has.
    pub width: Width,
    /// Whether a write exists.
    pub writable: bool,
}

impl FieldInfo {
    /// The area in the encoding.
    pub const fn area(&self) -> Area {
        area_of(self.encoding)
    }
}

/// The width in an encoding (bits 14:13).
pub const fn width_of(encoding: u32) -> Width {
    match (encoding >> 13) & 3 {
        0 => Width::Word,
        1 => Width::Quad,
        2 => Width::Long,
        _ => Width::Natural,
    }
}

/// The area in an encoding (bits 11:10).
pub const fn area_of(encoding: u32) -> Area {
    match (encoding >> 10) & 3 {
        0 => Area::Control,
        1 => Area::ExitInformation,
        2 => Area::Guest,
        _ => Area::Host,
    }
}

/// Index of an encoding inside its width and area (bits 9:1). IA32_VMX_VMCS_ENUM bounds it.
pub const fn index_of(encoding: u32) -> u32 {
    (encoding >> 1) & 0x1ff
}

/// Reads VMCS fields. The kernel's is VMREAD on the current VMCS, the tests' a table.
pub trait VmcsRead {
    /// The field's raw value.
    ///
    /// # Errors
    /// The VM-instruction error, for instance "unsupported VMCS component" for a field this processor lacks.
    fn try_read_raw(&self, encoding: u32) -> Result<u64, crate::errors::VmFail>;

    /// The field's value.
    ///
    /// # Panics
    /// If the read fails: a field is read only when the capabilities say that it exists, so failure is a bug here,
    /// and a made-up default would hide it.
    #[inline(always)]
    fn read<T: FieldType, A: Access>(&self, field: Field<T, A>) -> T::Value {
        match self.try_read_raw(field.encoding) {
            Ok(raw) => T::from_raw(raw),
            Err(error) => access_failed("VMREAD", field.encoding, error),
        }
    }

    /// The field's value, or why it cannot be read.
    ///
    /// # Errors
    /// As [`VmcsRead::try_read_raw`].
    fn try_read<T: FieldType, A: Access>(
        &self,
        field: Field<T, A>,
    ) -> Result<T::Value, crate::errors::VmFail> {
        self.try_read_raw(field.encoding).map(T::from_raw)
    }
}

/// Writes VMCS fields.
pub trait VmcsWrite: VmcsRead {
    /// Stores the field's raw value.
    ///
    /// # Errors
    /// The VM-instruction error.
    fn try_write_raw(&mut self, encoding: u32, value: u64) -> Result<(), crate::errors::VmFail>;

    /// Stores the field's value. Exists only for fields that may be written.
    ///
    /// # Panics
    /// If the write fails, as [`VmcsRead::read`].
    #[inline(always)]
    fn write<T: FieldType>(&mut self, field: Field<T, ReadWrite>, value: T::Value) {
        if let Err(error) = self.try_write_raw(field.encoding, T::into_raw(value)) {
            access_failed("VMWRITE", field.encoding, error)
        }
    }
}

/// A field was read or written that the processor does not have, which is a bug here.
///
/// # Panics
/// Always.
#[cold]
#[inline(never)]
pub(crate) fn access_failed(instruction: &str, encoding: u32, error: crate::errors::VmFail) -> ! {
    let name =
        ALL.iter().find(|field| field.encoding == encoding).map_or("unknown field", |field| field.name);
    panic!("{instruction} {name} ({encoding:#06x}): {error}")
}

macro_rules! fields {
    ($( $(#[doc = $doc:literal])+ $name:ident: $type:ty, $access:ty = $encoding:literal; )*) => {
        $( $(#[doc = $doc])+ pub const $name: Field<$type, $access> = Field::new($encoding, stringify!($name)); )*

        /// Every field above, in order of encoding: for the VMCS dump and the tests.
        pub const ALL: &[FieldInfo] = &[
            $( FieldInfo {
                encoding: $encoding,
                name: stringify!($name),
                width: <$type as FieldType>::WIDTH,
                writable: <$access as Access>::WRITABLE,
            }, )*
        ];
    };
}

fields! {
    // B.1 16-bit fields
    /// Virtual-processor identifier.
    VPID: u16, ReadWrite = 0x0000;
    /// Posted-interrupt notification vector.
    POSTED_INTERRUPT_VECTOR: u16, ReadWrite = 0x0002;
    /// EPTP index.
    EPTP_INDEX: u16, ReadWrite = 0x0004;
    /// HLAT prefix size.
    HLAT_PREFIX_SIZE: u16, ReadWrite = 0x0006;
    /// Last PID-pointer index.
    LAST_PID_POINTER_INDEX: u16, ReadWrite = 0x0008;
    /// Guest ES selector.
    GUEST_ES_SELECTOR: u16, ReadWrite = 0x0800;
    /// Guest CS selector.
    GUEST_CS_SELECTOR: u16, ReadWrite = 0x0802;
    /// Guest SS selector.
    GUEST_SS_SELECTOR: u16, ReadWrite = 0x0804;
    /// Guest DS selector.
    GUEST_DS_SELECTOR: u16, ReadWrite = 0x0806;
    /// Guest FS selector.
    GUEST_FS_SELECTOR: u16, ReadWrite = 0x0808;
    /// Guest GS selector.
    GUEST_GS_SELECTOR: u16, ReadWrite = 0x080a;
    /// Guest LDTR selector.
    GUEST_LDTR_SELECTOR: u16, ReadWrite = 0x080c;
    /// Guest TR selector.
    GUEST_TR_SELECTOR: u16, ReadWrite = 0x080e;
    /// Guest interrupt status (virtual-interrupt delivery).
    GUEST_INTERRUPT_STATUS: u16, ReadWrite = 0x0810;
    /// PML index.
    PML_INDEX: u16, ReadWrite = 0x0812;
    /// Guest user-interrupt notification vector.
    GUEST_UINV: u16, ReadWrite = 0x0814;
    /// Host ES selector.
    HOST_ES_SELECTOR: u16, ReadWrite = 0x0c00;
    /// Host CS selector.
    HOST_CS_SELECTOR: u16, ReadWrite = 0x0c02;
    /// Host SS selector.
    HOST_SS_SELECTOR: u16, ReadWrite = 0x0c04;
    /// Host DS selector.
    HOST_DS_SELECTOR: u16, ReadWrite = 0x0c06;
    /// Host FS selector.
    HOST_FS_SELECTOR: u16, ReadWrite = 0x0c08;
    /// Host GS selector.
    HOST_GS_SELECTOR: u16, ReadWrite = 0x0c0a;
    /// Host TR selector.
    HOST_TR_SELECTOR: u16, ReadWrite = 0x0c0c;

    // B.2 64-bit fields
    /// Physical address of I/O bitmap A (ports 0000h-7FFFh).
    IO_BITMAP_A: u64, ReadWrite = 0x2000;
    /// Physical address of I/O bitmap B (ports 8000h-FFFFh).
    IO_BITMAP_B: u64, ReadWrite = 0x2002;
    /// Physical address of the MSR bitmaps.
    MSR_BITMAP: u64, ReadWrite = 0x2004;
    /// Physical address of the VM-exit MSR-store list.
    EXIT_MSR_STORE_ADDRESS: u64, ReadWrite = 0x2006;
    /// Physical address of the VM-exit MSR-load list.
    EXIT_MSR_LOAD_ADDRESS: u64, ReadWrite = 0x2008;
    /// Physical address of the VM-entry MSR-load list.
    ENTRY_MSR_LOAD_ADDRESS: u64, ReadWrite = 0x200a;
    /// Executive-VMCS pointer.
    EXECUTIVE_VMCS: u64, ReadWrite = 0x200c;
    /// Physical address of the page-modification log.
    PML_ADDRESS: u64, ReadWrite = 0x200e;
    /// TSC offset.
    TSC_OFFSET: u64, ReadWrite = 0x2010;
    /// Physical address of the virtual-APIC page.
    VIRTUAL_APIC_ADDRESS: u64, ReadWrite = 0x2012;
    /// Physical address of the APIC-access page.
    APIC_ACCESS_ADDRESS: u64, ReadWrite = 0x2014;
    /// Physical address of the posted-interrupt descriptor.
    POSTED_INTERRUPT_DESCRIPTOR: u64, ReadWrite = 0x2016;
    /// VM-function controls.
    VM_FUNCTION_CONTROLS: u64, ReadWrite = 0x2018;
    /// EPT pointer.
    EPT_POINTER: u64, ReadWrite = 0x201a;
    /// EOI-exit bitmap 0.
    EOI_EXIT_BITMAP_0: u64, ReadWrite = 0x201c;
    /// EOI-exit bitmap 1.
    EOI_EXIT_BITMAP_1: u64, ReadWrite = 0x201e;
    /// EOI-exit bitmap 2.
    EOI_EXIT_BITMAP_2: u64, ReadWrite = 0x2020;
    /// EOI-exit bitmap 3.
    EOI_EXIT_BITMAP_3: u64, ReadWrite = 0x2022;
    /// Physical address of the EPTP list.
    EPTP_LIST_ADDRESS: u64, ReadWrite = 0x2024;
    /// Physical address of the VMREAD bitmap.
    VMREAD_BITMAP: u64, ReadWrite = 0x2026;
    /// Physical address of the VMWRITE bitmap.
    VMWRITE_BITMAP: u64, ReadWrite = 0x2028;
    /// Physical address of the virtualization-exception information.
    VE_INFORMATION_ADDRESS: u64, ReadWrite = 0x202a;
    /// XSS-exiting bitmap.
    XSS_EXITING_BITMAP: u64, ReadWrite = 0x202c;
    /// ENCLS-exiting bitmap.
    ENCLS_EXITING_BITMAP: u64, ReadWrite = 0x202e;
    /// Sub-page-permission-table pointer.
    SPP_TABLE_POINTER: u64, ReadWrite = 0x2030;
    /// TSC multiplier.
    TSC_MULTIPLIER: u64, ReadWrite = 0x2032;
    /// Tertiary processor-based VM-execution controls.
    TERTIARY_CONTROLS: u64, ReadWrite = 0x2034;
    /// ENCLV-exiting bitmap.
    ENCLV_EXITING_BITMAP: u64, ReadWrite = 0x2036;
    /// Low PASID directory address.
    LOW_PASID_DIRECTORY: u64, ReadWrite = 0x2038;
    /// High PASID directory address.
    HIGH_PASID_DIRECTORY: u64, ReadWrite = 0x203a;
    /// Shared EPT pointer.
    SHARED_EPT_POINTER: u64, ReadWrite = 0x203c;
    /// PCONFIG-exiting bitmap.
    PCONFIG_EXITING_BITMAP: u64, ReadWrite = 0x203e;
    /// Hypervisor-managed linear-address translation pointer.
    HLAT_POINTER: u64, ReadWrite = 0x2040;
    /// PID-pointer table address.
    PID_POINTER_TABLE: u64, ReadWrite = 0x2042;
    /// Secondary VM-exit controls.
    SECONDARY_EXIT_CONTROLS: u64, ReadWrite = 0x2044;
    /// IA32_SPEC_CTRL mask.
    SPEC_CTRL_MASK: u64, ReadWrite = 0x204a;
    /// IA32_SPEC_CTRL shadow.
    SPEC_CTRL_SHADOW: u64, ReadWrite = 0x204c;
    /// Guest-physical address of an EPT violation or misconfiguration.
    GUEST_PHYSICAL_ADDRESS: u64, ReadOnly = 0x2400;
    /// VMCS link pointer: all ones unless VMCS shadowing is used.
    VMCS_LINK_POINTER: u64, ReadWrite = 0x2800;
    /// Guest IA32_DEBUGCTL.
    GUEST_DEBUGCTL: u64, ReadWrite = 0x2802;
    /// Guest IA32_PAT.
    GUEST_PAT: u64, ReadWrite = 0x2804;
    /// Guest IA32_EFER.
    GUEST_EFER: u64, ReadWrite = 0x2806;
    /// Guest IA32_PERF_GLOBAL_CTRL.
    GUEST_PERF_GLOBAL_CTRL: u64, ReadWrite = 0x2808;
    /// Guest PDPTE 0 (PAE paging under EPT).
    GUEST_PDPTE_0: u64, ReadWrite = 0x280a;
    /// Guest PDPTE 1.
    GUEST_PDPTE_1: u64, ReadWrite = 0x280c;
    /// Guest PDPTE 2.
    GUEST_PDPTE_2: u64, ReadWrite = 0x280e;
    /// Guest PDPTE 3.
    GUEST_PDPTE_3: u64, ReadWrite = 0x2810;
    /// Guest IA32_BNDCFGS.
    GUEST_BNDCFGS: u64, ReadWrite = 0x2812;
    /// Guest IA32_RTIT_CTL.
    GUEST_RTIT_CTL: u64, ReadWrite = 0x2814;
    /// Guest IA32_LBR_CTL.
    GUEST_LBR_CTL: u64, ReadWrite = 0x2816;
    /// Guest IA32_PKRS.
    GUEST_PKRS: u64, ReadWrite = 0x2818;
    /// Host IA32_PAT.
    HOST_PAT: u64, ReadWrite = 0x2c00;
    /// Host IA32_EFER.
    HOST_EFER: u64, ReadWrite = 0x2c02;
    /// Host IA32_PERF_GLOBAL_CTRL.
    HOST_PERF_GLOBAL_CTRL: u64, ReadWrite = 0x2c04;
    /// Host IA32_PKRS.
    HOST_PKRS: u64, ReadWrite = 0x2c06;

    // B.3 32-bit fields
    /// Pin-based VM-execution controls.
    PIN_BASED_CONTROLS: u32, ReadWrite = 0x4000;
    /// Primary processor-based VM-execution controls.
    PRIMARY_CONTROLS: u32, ReadWrite = 0x4002;
    /// Exception bitmap.
    EXCEPTION_BITMAP: u32, ReadWrite = 0x4004;
    /// Page-fault error-code mask.
    PAGE_FAULT_ERROR_MASK: u32, ReadWrite = 0x4006;
    /// Page-fault error-code match.
    PAGE_FAULT_ERROR_MATCH: u32, ReadWrite = 0x4008;
    /// CR3-target count.
    CR3_TARGET_COUNT: u32, ReadWrite = 0x400a;
    /// Primary VM-exit controls.
    EXIT_CONTROLS: u32, ReadWrite = 0x400c;
    /// VM-exit MSR-store count.
    EXIT_MSR_STORE_COUNT: u32, ReadWrite = 0x400e;
    /// VM-exit MSR-load count.
    EXIT_MSR_LOAD_COUNT: u32, ReadWrite = 0x4010;
    /// VM-entry controls.
    ENTRY_CONTROLS: u32, ReadWrite = 0x4012;
    /// VM-entry MSR-load count.
    ENTRY_MSR_LOAD_COUNT: u32, ReadWrite = 0x4014;
    /// VM-entry interruption-information field.
    ENTRY_INTERRUPTION_INFO: u32, ReadWrite = 0x4016;
    /// VM-entry exception error code.
    ENTRY_EXCEPTION_ERROR_CODE: u32, ReadWrite = 0x4018;
    /// VM-entry instruction length.
    ENTRY_INSTRUCTION_LENGTH: u32, ReadWrite = 0x401a;
    /// TPR threshold.
    TPR_THRESHOLD: u32, ReadWrite = 0x401c;
    /// Secondary processor-based VM-execution controls.
    SECONDARY_CONTROLS: u32, ReadWrite = 0x401e;
    /// PLE_Gap.
    PLE_GAP: u32, ReadWrite = 0x4020;
    /// PLE_Window.
    PLE_WINDOW: u32, ReadWrite = 0x4022;
    /// Instruction-timeout control.
    INSTRUCTION_TIMEOUT: u32, ReadWrite = 0x4024;
    /// VM-instruction error.
    VM_INSTRUCTION_ERROR: u32, ReadOnly = 0x4400;
    /// Exit reason.
    EXIT_REASON: u32, ReadOnly = 0x4402;
    /// VM-exit interruption information.
    EXIT_INTERRUPTION_INFO: u32, ReadOnly = 0x4404;
    /// VM-exit interruption error code.
    EXIT_INTERRUPTION_ERROR_CODE: u32, ReadOnly = 0x4406;
    /// IDT-vectoring information.
    IDT_VECTORING_INFO: u32, ReadOnly = 0x4408;
    /// IDT-vectoring error code.
    IDT_VECTORING_ERROR_CODE: u32, ReadOnly = 0x440a;
    /// VM-exit instruction length, bytes.
    EXIT_INSTRUCTION_LENGTH: u32, ReadOnly = 0x440c;
    /// VM-exit instruction information.
    EXIT_INSTRUCTION_INFO: u32, ReadOnly = 0x440e;
    /// Guest ES limit.
    GUEST_ES_LIMIT: u32, ReadWrite = 0x4800;
    /// Guest CS limit.
    GUEST_CS_LIMIT: u32, ReadWrite = 0x4802;
    /// Guest SS limit.
    GUEST_SS_LIMIT: u32, ReadWrite = 0x4804;
    /// Guest DS limit.
    GUEST_DS_LIMIT: u32, ReadWrite = 0x4806;
    /// Guest FS limit.
    GUEST_FS_LIMIT: u32, ReadWrite = 0x4808;
    /// Guest GS limit.
    GUEST_GS_LIMIT: u32, ReadWrite = 0x480a;
    /// Guest LDTR limit.
    GUEST_LDTR_LIMIT: u32, ReadWrite = 0x480c;
    /// Guest TR limit.
    GUEST_TR_LIMIT: u32, ReadWrite = 0x480e;
    /// Guest GDTR limit.
    GUEST_GDTR_LIMIT: u32, ReadWrite = 0x4810;
    /// Guest IDTR limit.
    GUEST_IDTR_LIMIT: u32, ReadWrite = 0x4812;
    /// Guest ES access rights.
    GUEST_ES_ACCESS_RIGHTS: u32, ReadWrite = 0x4814;
    /// Guest CS access rights.
    GUEST_CS_ACCESS_RIGHTS: u32, ReadWrite = 0x4816;
    /// Guest SS access rights.
    GUEST_SS_ACCESS_RIGHTS: u32, ReadWrite = 0x4818;
    /// Guest DS access rights.
    GUEST_DS_ACCESS_RIGHTS: u32, ReadWrite = 0x481a;
    /// Guest FS access rights.
    GUEST_FS_ACCESS_RIGHTS: u32, ReadWrite = 0x481c;
    /// Guest GS access rights.
    GUEST_GS_ACCESS_RIGHTS: u32, ReadWrite = 0x481e;
    /// Guest LDTR access rights.
    GUEST_LDTR_ACCESS_RIGHTS: u32, ReadWrite = 0x4820;
    /// Guest TR access rights.
    GUEST_TR_ACCESS_RIGHTS: u32, ReadWrite = 0x4822;
    /// Guest interruptibility state.
    GUEST_INTERRUPTIBILITY: u32, ReadWrite = 0x4824;
    /// Guest activity state.
    GUEST_ACTIVITY: u32, ReadWrite = 0x4826;
    /// Guest SMBASE.
    GUEST_SMBASE: u32, ReadWrite = 0x4828;
    /// Guest IA32_SYSENTER_CS.
    GUEST_SYSENTER_CS: u32, ReadWrite = 0x482a;
    /// VMX-preemption timer value.
    PREEMPTION_TIMER: u32, ReadWrite = 0x482e;
    /// Host IA32_SYSENTER_CS.
    HOST_SYSENTER_CS: u32, ReadWrite = 0x4c00;

    // B.4 natural-width fields
    /// CR0 guest/host mask: bits set here belong to the host.
    CR0_MASK: Natural, ReadWrite = 0x6000;
    /// CR4 guest/host mask.
    CR4_MASK: Natural, ReadWrite = 0x6002;
    /// CR0 read shadow: what the guest sees in the host's bits.
    CR0_READ_SHADOW: Natural, ReadWrite = 0x6004;
    /// CR4 read shadow.
    CR4_READ_SHADOW: Natural, ReadWrite = 0x6006;
    /// CR3-target value 0.
    CR3_TARGET_0: Natural, ReadWrite = 0x6008;
    /// CR3-target value 1.
    CR3_TARGET_1: Natural, ReadWrite = 0x600a;
    /// CR3-target value 2.
    CR3_TARGET_2: Natural, ReadWrite = 0x600c;
    /// CR3-target value 3.
    CR3_TARGET_3: Natural, ReadWrite = 0x600e;
    /// Exit qualification.
    EXIT_QUALIFICATION: Natural, ReadOnly = 0x6400;
    /// I/O RCX (SMM exits).
    IO_RCX: Natural, ReadOnly = 0x6402;
    /// I/O RSI (SMM exits).
    IO_RSI: Natural, ReadOnly = 0x6404;
    /// I/O RDI (SMM exits).
    IO_RDI: Natural, ReadOnly = 0x6406;
    /// I/O RIP (SMM exits).
    IO_RIP: Natural, ReadOnly = 0x6408;
    /// Guest-linear address.
    GUEST_LINEAR_ADDRESS: Natural, ReadOnly = 0x640a;
    /// Guest CR0.
    GUEST_CR0: Natural, ReadWrite = 0x6800;
    /// Guest CR3.
    GUEST_CR3: Natural, ReadWrite = 0x6802;
    /// Guest CR4.
    GUEST_CR4: Natural, ReadWrite = 0x6804;
    /// Guest ES base.
    GUEST_ES_BASE: Natural, ReadWrite = 0x6806;
    /// Guest CS base.
    GUEST_CS_BASE: Natural, ReadWrite = 0x6808;
    /// Guest SS base.
    GUEST_SS_BASE: Natural, ReadWrite = 0x680a;
    /// Guest DS base.
    GUEST_DS_BASE: Natural, ReadWrite = 0x680c;
    /// Guest FS base.
    GUEST_FS_BASE: Natural, ReadWrite = 0x680e;
    /// Guest GS base.
    GUEST_GS_BASE: Natural, ReadWrite = 0x6810;
    /// Guest LDTR base.
    GUEST_LDTR_BASE: Natural, ReadWrite = 0x6812;
    /// Guest TR base.
    GUEST_TR_BASE: Natural, ReadWrite = 0x6814;
    /// Guest GDTR base.
    GUEST_GDTR_BASE: Natural, ReadWrite = 0x6816;
    /// Guest IDTR base.
    GUEST_IDTR_BASE: Natural, ReadWrite = 0x6818;
    /// Guest DR7.
    GUEST_DR7: Natural, ReadWrite = 0x681a;
    /// Guest RSP.
    GUEST_RSP: Natural, ReadWrite = 0x681c;
    /// Guest RIP.
    GUEST_RIP: Natural, ReadWrite = 0x681e;
    /// Guest RFLAGS.
    GUEST_RFLAGS: Natural, ReadWrite = 0x6820;
    /// Guest pending debug exceptions.
    GUEST_PENDING_DEBUG: Natural, ReadWrite = 0x6822;
    /// Guest IA32_SYSENTER_ESP.
    GUEST_SYSENTER_ESP: Natural, ReadWrite = 0x6824;
    /// Guest IA32_SYSENTER_EIP.
    GUEST_SYSENTER_EIP: Natural, ReadWrite = 0x6826;
    /// Guest IA32_S_CET.
    GUEST_S_CET: Natural, ReadWrite = 0x6828;
    /// Guest SSP.
    GUEST_SSP: Natural, ReadWrite = 0x682a;
    /// Guest IA32_INTERRUPT_SSP_TABLE_ADDR.
    GUEST_INTERRUPT_SSP_TABLE: Natural, ReadWrite = 0x682c;
    /// Host CR0.
    HOST_CR0: Natural, ReadWrite = 0x6c00;
    /// Host CR3.
    HOST_CR3: Natural, ReadWrite = 0x6c02;
    /// Host CR4.
    HOST_CR4: Natural, ReadWrite = 0x6c04;
    /// Host FS base.
    HOST_FS_BASE: Natural, ReadWrite = 0x6c06;
    /// Host GS base.
    HOST_GS_BASE: Natural, ReadWrite = 0x6c08;
    /// Host TR base.
    HOST_TR_BASE: Natural, ReadWrite = 0x6c0a;
    /// Host GDTR base.
    HOST_GDTR_BASE: Natural, ReadWrite = 0x6c0c;
    /// Host IDTR base.
    HOST_IDTR_BASE: Natural, ReadWrite = 0x6c0e;
    /// Host IA32_SYSENTER_ESP.
    HOST_SYSENTER_ESP: Natural, ReadWrite = 0x6c10;
    /// Host IA32_SYSENTER_EIP.
    HOST_SYSENTER_EIP: Natural, ReadWrite = 0x6c12;
    /// Host RSP.
    HOST_RSP: Natural, ReadWrite = 0x6c14;
    /// Host RIP.
    HOST_RIP: Natural, ReadWrite = 0x6c16;
    /// Host IA32_S_CET.
    HOST_S_CET: Natural, ReadWrite = 0x6c18;
    /// Host SSP.
    HOST_SSP: Natural, ReadWrite = 0x6c1a;
    /// Host IA32_INTERRUPT_SSP_TABLE_ADDR.
    HOST_INTERRUPT_SSP_TABLE: Natural, ReadWrite = 0x6c1c;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeVmcs;

    #[test]
    fn the_type_of_a_field_agrees_with_its_encoding() {
        for field in ALL {
            assert_eq!(width_of(field.encoding), field.width, "{}", field.name);
            assert_eq!(field.area() != Area::ExitInformation, field.writable, "{}", field.name);
            assert_eq!(field.encoding & 1, 0, "{}: the full access type, not the high half", field.name);
            assert_eq!(field.encoding & 0xffff_9000, 0, "{}: reserved bits", field.name);
        }
    }

    #[test]
    fn the_name_of_a_field_agrees_with_its_area() {
        for field in ALL {
            let area = field.area();
            assert_eq!(field.name.starts_with("HOST_"), area == Area::Host, "{}", field.name);
            if field.name.starts_with("GUEST_") {
                let physical_or_linear =
                    matches!(field.name, "GUEST_PHYSICAL_ADDRESS" | "GUEST_LINEAR_ADDRESS");
                assert_eq!(area == Area::Guest, !physical_or_linear, "{}", field.name);
            }
        }
    }

    #[test]
    fn fields_are_listed_once_and_in_order() {
        for pair in ALL.windows(2) {
            assert!(pair[0].encoding < pair[1].encoding, "{} before {}", pair[0].name, pair[1].name);
        }
        assert!(ALL.len() > 150);
    }

    #[test]
    fn guest_segment_fields_lie_two_apart_in_the_order_of_the_registers() {
        let selectors = [GUEST_ES_SELECTOR, GUEST_CS_SELECTOR, GUEST_SS_SELECTOR, GUEST_DS_SELECTOR];
        for (i, field) in selectors.iter().enumerate() {
            assert_eq!(field.encoding(), 0x800 + 2 * i as u32);
        }
        assert_eq!(GUEST_TR_BASE.encoding() - GUEST_ES_BASE.encoding(), 14);
        assert_eq!(GUEST_TR_LIMIT.encoding() - GUEST_ES_LIMIT.encoding(), 14);
    }

    #[test]
    fn a_read_returns_what_was_written_in_the_fields_own_type() {
        let mut vmcs = FakeVmcs::default();
        vmcs.write(VPID, 7);
        vmcs.write(GUEST_RIP, 0xffff_8000_0000_1234);
        vmcs.set(EXIT_REASON.encoding(), 10);
        let vpid: u16 = vmcs.read(VPID);
        let rip: u64 = vmcs.read(GUEST_RIP);
        assert_eq!((vpid, rip, vmcs.read(EXIT_REASON)), (7, 0xffff_8000_0000_1234, 10));
    }

    #[test]
    fn a_read_never_makes_up_a_value() {
        let vmcs = FakeVmcs::default();
        assert!(vmcs.try_read(GUEST_SSP).is_err());
    }

    #[test]
    #[should_panic(expected = "GUEST_SSP")]
    fn a_failed_read_names_the_field() {
        let _ = FakeVmcs::default().read(GUEST_SSP);
    }
}
