//! Booting over PXE: by each firmware's own means, with settings by the card's address, and from a real server that
//! runs with the configuration as written.

use std::fs;
use std::path::{Path, PathBuf};

use machine_tests::{LIMIT, NicMode, test_name};
use xtask::emulator;
use xtask::image::dnsmasq::{Address, Mode};
use xtask::image::{Host, Pxe};
use xtask::qemu::{Boot, Firmware, Machine};
use xtask::run::find_program;

use super::boots::{BIG, RUN_WORDS, WORDS, dir, expect_bochs, expect_qemu, image, qemu};
use super::expectation::Expectation;

/// The first card's address on every machine here, and one that no machine has.
const CARD: &str = "52:54:00:4c:53:01";
const OTHER_CARD: &str = "52-54-00-4C-53-77";
/// The network that the written configuration is for.
const LAN: &str = "192.168.77.1/24";

/// The configuration of the host with [`CARD`].
const OWN_CONFIG: &[u8] = b"# this host's own\nlog=debug\n";

/// A PXE directory whose default is [`image`]'s, with these hosts.
fn tree(sizes: &[usize], hosts: Vec<Host>) -> (PathBuf, Expectation) {
    let dir = dir();
    let (image, expectation) = image(&dir, sizes);
    let address: Address = LAN.parse().unwrap();
    let pxe = Pxe { interface: "lan0".into(), address, server: None, hosts };
    image.write_pxe(&dir.join("pxe"), &pxe).unwrap_or_else(|error| panic!("{error:#}"));
    (dir.join("pxe"), expectation)
}

/// The same with settings for [`CARD`]: other words, another configuration.
fn tree_with_own_settings() -> (PathBuf, Expectation) {
    let config = std::env::temp_dir().join(format!("lockstep-{}-{}.conf", std::process::id(), test_name()));
    fs::write(&config, OWN_CONFIG).unwrap();
    let own: Host = format!("{CARD},config={},name=alpha,landings=7", config.display()).parse().unwrap();
    let other: Host = format!("{OTHER_CARD},name=wrong,seed=99").parse().unwrap();
    let (dir, mut expectation) = tree(&[], vec![other, own]);
    fs::remove_file(config).unwrap();
    expectation.words = format!("{RUN_WORDS} seed=0x1234 proof=off name=alpha landings=7");
    expectation.modules = vec![("config".into(), OWN_CONFIG.to_vec())];
    (dir, expectation)
}

#[test]
fn pxe_on_qemu_bios_with_a_big_module() {
    let (dir, expectation) = tree(&[1, BIG], vec![]);
    expect_qemu(&qemu(Firmware::Bios, Boot::Pxe(dir)), &expectation);
}

#[test]
fn pxe_on_qemu_uefi_with_a_big_module() {
    let (dir, expectation) = tree(&[1, BIG], vec![]);
    expect_qemu(&qemu(Firmware::Uefi, Boot::Pxe(dir)), &expectation);
}

/// The host's own words and configuration on each firmware, by the address of the card that it boots from.
#[test]
fn settings_come_by_the_card_s_address() {
    let (dir, expectation) = tree_with_own_settings();
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        expect_qemu(&qemu(firmware, Boot::Pxe(dir.clone())), &expectation);
    }
}

/// Another card, another host: it gets the default, and the first one's settings do not leak.
#[test]
fn a_host_without_settings_gets_the_default() {
    let (dir, _) = tree_with_own_settings();
    let (_, default) = image(&dir, &[]);
    let mut machine = qemu(Firmware::Bios, Boot::Pxe(dir));
    machine.nics[0].mac[5] = 0x66;
    let outcome = expect_qemu(&machine, &default);
    assert!(outcome.console.contains(WORDS.split(' ').next().unwrap()));
}

#[test]
fn pxe_on_bochs_with_own_settings() {
    let (dir, expectation) = tree_with_own_settings();
    let rom = ["/usr/lib/ipxe/qemu/pxe-e1000.rom", "/usr/share/qemu/pxe-e1000.rom"].map(PathBuf::from);
    let rom = rom.into_iter().find(|rom| rom.is_file()).expect("package ipxe-qemu");
    let settings = dir.with_file_name("vnet.conf");
    // The first line is the module's mark of its kind of file.
    fs::write(&settings, "# vnet config\nbootfile = bios.0\n").unwrap();
    let mut nic = machine_tests::Nic::new(1, NicMode::Vnet { root: dir, settings });
    nic.rom = Some(rom);
    let machine = emulator::Machine {
        name: test_name(),
        boot: emulator::Boot::Network,
        nics: vec![nic],
        limit: LIMIT,
        ..emulator::Machine::default()
    };
    expect_bochs(&machine, &expectation);
}

/// A network of its own for the machine and for dnsmasq: a bridge `lan0` with our address, and a TAP for the machine.
/// With `proxy`, another DHCP server is on the bridge, in a namespace of its own, and knows nothing of us. All of it
/// goes away with the last process. The arguments: the directory, the configuration file, `proxy` or nothing special,
/// then the machine's command.
const LAB: &str = r#"
set -e
dir=$1; file=$2; mode=$3; shift 3
ip link set lo up
ip link add lan0 type bridge
ip addr add 192.168.77.1/24 dev lan0
ip link set lan0 up
ip tuntap add tap0 mode tap
ip link set tap0 master lan0 up
if [ "$mode" = proxy ]; then
  unshare --net sh -c '
    until ip link show site0 >/dev/null 2>&1; do sleep 0.1; done
    ip link set lo up; ip addr add 192.168.77.2/24 dev site0; ip link set site0 up
    exec dnsmasq --keep-in-foreground --log-facility="$0/site.log" --conf-file=/dev/null --user=root --port=0 \
      --bind-interfaces --interface=site0 --except-interface=lo --dhcp-range=192.168.77.60,192.168.77.90,1h \
      --leasefile-ro --pid-file --log-dhcp' "$dir/.." &
  # The namespace is there once the process differs from us in it.
  until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.1; done
  ip link add site0 netns $! type veth peer name siteb
  ip link set siteb master lan0 up
fi
dnsmasq --test --conf-file="$file"
dnsmasq --keep-in-foreground --log-facility="$dir/../dnsmasq.log" --user=root --conf-file="$file" &
until grep -q "TFTP root is" "$dir/../dnsmasq.log" 2>/dev/null; do sleep 0.1; done
exec "$@"
"#;

/// Boots a machine in [`LAB`] from dnsmasq with the configuration as `cargo xtask image` wrote it.
fn boot_from_dnsmasq(firmware: Firmware, mode: Mode) {
    let (dir, expectation) = tree_with_own_settings();
    if mode == Mode::Proxy {
        let (image, _) = image(&dir, &[]);
        let address: Address = LAN.parse().unwrap();
        let pxe = Pxe { interface: "lan0".into(), address, server: Some(address.ip), hosts: vec![] };
        image.write_pxe(&dir, &pxe).unwrap();
    }
    let mut machine = Machine { wrapper: lab(&dir, mode), ..qemu(firmware, Boot::Network) };
    machine.nics[0].netdev = Some("tap,ifname=tap0,script=no,downscript=no".into());
    let outcome = expect_qemu(&machine, &expectation);
    let log = fs::read_to_string(dir.with_file_name("dnsmasq.log")).unwrap();
    let own = format!("hosts/{}.cfg", CARD.replace(':', "-"));
    for file in [firmware.loader(), "grub.cfg", own.as_str(), "kernel"] {
        assert!(
            log.lines().any(|l| l.contains("sent ") && l.contains(&format!("/{file} to "))),
            "{file}: {log}"
        );
    }
    let gave = log.lines().any(|line| line.contains("DHCPACK"));
    assert_eq!(
        gave,
        mode == Mode::Server,
        "a proxy gives no addresses, a server does:\n{log}\n{}",
        outcome.last_words()
    );
}

/// The command that puts a machine into the lab. Without root, a user namespace has the rights that are needed; where
/// neither may be had, the test says so and fails: it could prove nothing.
fn lab(dir: &Path, mode: Mode) -> Vec<String> {
    for program in ["unshare", "ip", "dnsmasq"] {
        assert!(
            find_program(program).is_some(),
            "`{program}` is not installed; `cargo xtask setup` installs it"
        );
    }
    let file = dir.join(mode.file());
    let kind = if mode == Mode::Proxy { "proxy" } else { "server" };
    let mut words: Vec<String> =
        vec!["unshare".into(), "--net".into(), "--pid".into(), "--fork".into(), "--kill-child".into()];
    if !rustix::process::geteuid().is_root() {
        words.push("--map-root-user".into());
    }
    words.extend(["--mount-proc", "sh", "-c", LAB, "lab"].map(String::from));
    words.extend([dir, file.as_path()].map(|path| path.display().to_string()));
    words.push(kind.into());
    words
}

#[test]
fn dnsmasq_as_written_boots_qemu_bios() {
    boot_from_dnsmasq(Firmware::Bios, Mode::Server);
}

#[test]
fn dnsmasq_as_written_boots_qemu_uefi() {
    boot_from_dnsmasq(Firmware::Uefi, Mode::Server);
}

#[test]
fn dnsmasq_beside_another_server_boots_qemu_bios() {
    boot_from_dnsmasq(Firmware::Bios, Mode::Proxy);
}

#[test]
fn dnsmasq_beside_another_server_boots_qemu_uefi() {
    boot_from_dnsmasq(Firmware::Uefi, Mode::Proxy);
}
