//! The steps of the boot, in the order in which `main.rs` takes them.

use crate::arch::{apic, cpu, gdt, idt, paging, percpu, physical, screen, stack, time};
use crate::events::{Event, Stage};
use crate::memory::{self, FRAME, Pool, Zone};
use crate::options::Options;
use crate::symbols::Symbols;
use crate::{heap, machine_line, panic, smp};
use boot::memory_map::{LOW, Range, Usable};
use boot::multiboot::{BootInfo, Framebuffer, Module};
use crc::{CRC_32_ISO_HDLC, Crc, Table};
use spin::Once;

/// The end of the memory that real-mode code may use.
const LOW_USABLE_END: u64 = 0xA_0000;

/// Module whose words are options.
const CONFIG_MODULE: &str = "config";

/// What the loader has said, and the options made of it.
pub struct Told {
    /// The boot information.
    pub info: BootInfo<'static>,
    /// The options.
    pub options: Options<'static>,
}

static TOLD: Once<Told> = Once::new();

/// What the loader has said. After [`read_loader`].
pub fn told() -> &'static Told {
    TOLD.get().expect("the boot information has been read")
}

/// Says what is missing, and ends the run: this machine or its configuration is refused.
pub fn refuse(why: core::fmt::Arguments<'_>) -> ! {
    log::error!("{why}");
    machine_line!("boot verdict=refused");
    cpu::exit(cpu::ExitCode::Refused)
}

/// Reads the boot information at `address` and the options in it.
pub fn read_loader(address: u64) -> &'static Told {
    percpu::record(Event::Stage(Stage::Entry));
    let Some(bytes) = physical::boot_information(address) else {
        refuse(format_args!("no boot information at {address:#x}; boot by GRUB's multiboot2 command"))
    };
    let info = BootInfo::parse(bytes).unwrap_or_else(|e| refuse(format_args!("boot information: {e}")));
    // A BIOS machine without a word about the screen has the one a BIOS leaves; UEFI has nothing to fall back on.
    let bios_screen = info.efi_system_table.is_none().then_some(Framebuffer::VGA_TEXT);
    if let Some(frame) = info.framebuffer.or(bios_screen) {
        screen::init(&frame);
    }
    let mut options = Options::default();
    // Physical memory is still mapped by the boot page tables, up to 4 GiB: modules are there.
    if let Some(module) = info.modules.iter().find(|m| m.string == CONFIG_MODULE) {
        match core::str::from_utf8(physical::read_only(bytes_of(module))) {
            Ok(text) => options.file(text),
            Err(_) => refuse(format_args!("module {CONFIG_MODULE} is not UTF-8 text")),
        }
    }
    options.line(info.command_line);
    if options.exit_port {
        cpu::allow_exit_port();
    }
    log::set_max_level(options.log);
    log::info!("Lockstep {} on host {}", env!("CARGO_PKG_VERSION"), options.name);
    log::info!("loaded by {}; command line: {}", info.loader, info.command_line);
    for word in &options.unknown {
        log::warn!("option {word} is not known; ignored");
    }
    if !options.bad.is_empty() {
        options.bad.iter().for_each(|bad| log::error!("{bad}"));
        refuse(format_args!("correct the options above"));
    }
    TOLD.call_once(|| Told { info, options })
}

fn bytes_of(module: &Module<'_>) -> Range {
    Range::new(module.start, module.end)
}

/// Catches exceptions from now on, still on the current stack.
pub fn catch_exceptions() {
    idt::init();
    idt::load();
    idt::mask_legacy_controllers();
}

/// Makes uptime and waiting work.
pub fn start_clock() {
    let Some(f) = time::calibrate() else {
        refuse(format_args!(
            "no source for the time-stamp counter's frequency: no CPUID leaf 15h or 16h, no 8254"
        ))
    };
    if let Some(said) = f.disbelieved {
        log::warn!(
            "CPUID says {said} Hz for the time-stamp counter; the 8254 says otherwise and is believed"
        );
    }
    log::info!("time-stamp counter: {}.{:03} MHz ({})", f.hertz / 1_000_000, f.hertz / 1000 % 1000, f.source);
    machine_line!("tsc hertz={} source={}", f.hertz, f.source);
}

/// Fills the frame pools and changes to the kernel's own page tables.
pub fn set_up_memory(info: &'static BootInfo<'static>) {
    percpu::record(Event::Stage(Stage::Memory));
    let map = info.firmware_map();
    let image = boot::entry::image();
    let symbols =
        info.symbol_table().unwrap_or_default().map(|(start, bytes)| Range::from_length(start, bytes));
    let kernel = Range::new(image.all.0, image.all.1);
    let loader = Range::from_length(physical::address_of(info.bytes), info.bytes.len() as u64);
    let constants = || info.modules.iter().map(bytes_of).chain(symbols).chain([loader]);
    let taken = || constants().chain([kernel]);
    let beyond = Range::new(1 << paging::features().physical_bits, u64::MAX);
    let main = Usable::derive(map.clone(), taken().chain([LOW, beyond]));
    let low =
        Usable::derive(map, taken().chain([Range::new(0, FRAME), Range::new(LOW_USABLE_END, u64::MAX)]));
    if main.lost > 0 {
        log::warn!("the memory map has too many ranges: {} KiB are not used", main.lost / 1024);
    }
    log::info!("memory: {} MiB usable in {} ranges", main.bytes() >> 20, main.ranges.len());
    machine_line!(
        "memory usable-kib={} ranges={} low-kib={}",
        main.bytes() / 1024,
        main.ranges.len(),
        low.bytes() / 1024
    );
    let all = main.ranges.clone().into_iter().chain(low.ranges.clone());
    *memory::frames() = Pool::new(low, main);

    percpu::record(Event::Stage(Stage::Paging));
    paging::init(&image, all, constants()).unwrap_or_else(|e| refuse(format_args!("page tables: {e}")));
    screen::map().unwrap_or_else(|e| refuse(format_args!("page tables for the screen: {e}")));
    log::debug!("the loader's screen: {:x?}", info.framebuffer);
    match screen::shape() {
        Some((kind, columns, rows)) => machine_line!("screen kind={kind} columns={columns} rows={rows}"),
        None => machine_line!("screen kind=none"),
    }
    let [table, strings] = symbols.map(physical::read_only);
    panic::set_symbols(Symbols::new(table, strings));
    let heap = memory::frames().take(heap::BYTES / FRAME, FRAME, Zone::Any);
    heap::init(heap.unwrap_or_else(|e| refuse(format_args!("heap: {e}"))));
}

/// A stack with a guard page for the boot processor, and stacks for its interrupts. Goes on in `next`.
pub fn change_stack(next: extern "C" fn() -> !) -> ! {
    let stack = stack::allocate(stack::BOOT_BYTES).unwrap_or_else(|e| refuse(format_args!("stack: {e}")));
    gdt::init().unwrap_or_else(|e| refuse(format_args!("interrupt stacks: {e}")));
    idt::use_interrupt_stacks();
    stack::switch_to(stack, next)
}

/// Says what the page tables look like, and stops if a page is both writable and executable.
pub fn check_paging() {
    let census = paging::census();
    let [small, large, giant] = census.pages;
    let features = paging::features();
    if !features.no_execute {
        log::warn!("the processor has no NX bit: data can be executed");
    }
    machine_line!(
        "paging nx={} pages-4k={small} pages-2m={large} pages-1g={giant} executable={} writable-executable={}",
        u8::from(features.no_execute),
        census.executable,
        census.writable_executable
    );
    assert!(
        !features.no_execute || census.writable_executable == 0,
        "a page is both writable and executable"
    );
}

/// Turns the local APIC on.
pub fn set_up_apic(options: &Options<'_>) {
    let want_x2 = options.apic == crate::options::ApicMode::Auto;
    let mode = apic::init(want_x2).unwrap_or_else(|e| refuse(format_args!("local APIC: {e}")));
    percpu::this().set_apic_id(apic::id());
    percpu::this().set_online();
    let hertz = apic::calibrate_timer();
    log::info!(
        "local APIC {}: {mode:?}, timer {}.{:03} MHz",
        apic::id(),
        hertz / 1_000_000,
        hertz / 1000 % 1000
    );
    machine_line!("apic id={} mode={mode:?} timer-hertz={hertz}", apic::id());
}

/// Prints each module with its checksum.
pub fn list_modules(info: &BootInfo<'_>) {
    static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);
    for (index, module) in info.modules.iter().enumerate() {
        let bytes = physical::read_only(bytes_of(module));
        let name = module.string.split_ascii_whitespace().next().unwrap_or("-");
        let crc = CRC.checksum(bytes);
        log::info!("module {index}: {name}, {} bytes at {:#x}", bytes.len(), module.start);
        machine_line!("module index={index} name={name} bytes={} crc32={crc:08x}", bytes.len());
    }
}

/// Starts all other processors.
pub fn start_processors(apic_ids: impl Iterator<Item = u32>) {
    percpu::record(Event::Stage(Stage::Processors));
    let started = smp::start(apic_ids).unwrap_or_else(|e| refuse(format_args!("starting processors: {e}")));
    if started.beyond > 0 {
        let max = percpu::MAX_CPUS;
        log::warn!("{} processors are beyond the {max} this kernel uses; left out", started.beyond);
    }
    log::info!("{} processors run", started.online);
    machine_line!("cpus online={} silent={} beyond={}", started.online, started.silent, started.beyond);
}

/// Says how much memory is left when the boot work is done.
pub fn report_memory() {
    let free = memory::frames().free(Zone::Any) * FRAME / 1024;
    machine_line!("memory-left free-kib={free} heap-used={} heap-size={}", heap::used(), heap::BYTES);
}
