/////////////////////////////////////////////////////////////////////////
// Lockstep: the LOCKSTEP_* knobs of the emulated machine, exit with a code
//
//  This library is free software; you can redistribute it and/or
//  modify it under the terms of the GNU Lesser General Public
//  License as published by the Free Software Foundation; either
//  version 2.1 of the License, or (at your option) any later version.
//
//  This library is distributed in the hope that it will be useful,
//  but WITHOUT ANY WARRANTY; without even the implied warranty of
//  MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE.  See the GNU
//  Lesser General Public License for more details.
//
//  You should have received a copy of the GNU Lesser General Public
//  License along with this library (COPYING.LGPL-2.1); if not, write to the
//  Free Software Foundation, Inc., 51 Franklin St, Fifth Floor, Boston,
//  MA 02110-1301 USA
/////////////////////////////////////////////////////////////////////////

#include "bochs.h"
#include "cpu.h"
#include "pc_system.h"
#include "gui/siminterface.h"
#include "cpuid.h"
#include "lockstep.h"
#include "param_names.h"
#include <stdlib.h>
#include <errno.h>
#include <new>

static void bad_knob(const char *name, const char *value, const char *want)
{
  fprintf(stderr, "lockstep: %s=%s is not understood; want %s\n", name, value, want);
  exit(2);
}

// One number of a colon-separated list; advances *p past it and its colon.
static Bit64u number(const char *name, const char *value, const char **p, const char *want)
{
  char *end;
  errno = 0;
  if (**p < '0' || **p > '9') bad_knob(name, value, want);
  Bit64u n = strtoull(*p, &end, 0);
  if (errno || (*end != ':' && *end != 0 && *end != ',')) bad_knob(name, value, want);
  *p = end;
  return n;
}

static bool colon(const char **p)
{
  if (**p != ':') return false;
  (*p)++;
  return true;
}

static void read_seed(lockstep_knobs_t *k)
{
  const char *want = "a 64-bit number";
  const char *s = getenv("LOCKSTEP_SEED");
  if (! s || ! *s) return;
  const char *p = s;
  k->seed = number("LOCKSTEP_SEED", s, &p, want);
  if (*p) bad_knob("LOCKSTEP_SEED", s, want);
}

static void read_skid(lockstep_knobs_t *k)
{
  const char *want = "min:max:seed in instructions, min <= max <= 100000";
  const char *s = getenv("LOCKSTEP_SKID");
  if (! s || ! *s) return;
  const char *p = s;
  Bit64u lo = number("LOCKSTEP_SKID", s, &p, want), hi = lo;
  if (colon(&p)) hi = number("LOCKSTEP_SKID", s, &p, want);
  if (colon(&p)) k->skid_seed = number("LOCKSTEP_SKID", s, &p, want);
  if (*p || lo > hi || hi > 100000) bad_knob("LOCKSTEP_SKID", s, want);
  k->skid_min = (Bit32u) lo;
  k->skid_max = (Bit32u) hi;
}

static void read_pmu(lockstep_knobs_t *k)
{
  const char *want = "version[:general[:fixed[:width]]], version 1..5, general 1..8, fixed 0..3 (0 in version 1), width 32..48";
  k->pmu = { 5, 4, 3, 48 };
  const char *s = getenv("LOCKSTEP_PMU");
  if (! s || ! *s) return;
  const char *p = s;
  k->pmu.version = (unsigned) number("LOCKSTEP_PMU", s, &p, want);
  if (k->pmu.version == 1) k->pmu.fixed = 0;
  if (colon(&p)) k->pmu.general = (unsigned) number("LOCKSTEP_PMU", s, &p, want);
  if (colon(&p)) k->pmu.fixed = (unsigned) number("LOCKSTEP_PMU", s, &p, want);
  if (colon(&p)) k->pmu.width = (unsigned) number("LOCKSTEP_PMU", s, &p, want);
  const lockstep_pmu_t *m = &k->pmu;
  if (*p || m->version < 1 || m->version > 5 || m->general < 1 || m->general > 8 || m->fixed > 3 ||
      m->width < 32 || m->width > 48 || (m->version == 1 && m->fixed)) bad_knob("LOCKSTEP_PMU", s, want);
}

static void read_tlb(lockstep_knobs_t *k)
{
  const char *want = "seed[:walks:evictions], both per million instructions, at most 1000000 together";
  const char *s = getenv("LOCKSTEP_TLB");
  if (! s || ! *s) return;
  const char *p = s;
  Bit64u walks = 1000, evictions = 200;
  k->tlb_seed = number("LOCKSTEP_TLB", s, &p, want);
  if (colon(&p)) {
    walks = number("LOCKSTEP_TLB", s, &p, want);
    if (! colon(&p)) bad_knob("LOCKSTEP_TLB", s, want);
    evictions = number("LOCKSTEP_TLB", s, &p, want);
  }
  if (*p || walks > 1000000 || evictions > 1000000 || walks + evictions > 1000000) bad_knob("LOCKSTEP_TLB", s, want);
  k->tlb_walks = (Bit32u) walks;
  k->tlb_evictions = (Bit32u) evictions;
}

// True when *p starts with the word, up to the end, a comma or a colon.
static bool word(const char **p, const char *name)
{
  size_t n = strlen(name);
  if (strncmp(*p, name, n)) return false;
  if ((*p)[n] != 0 && (*p)[n] != ',' && (*p)[n] != ':') return false;
  *p += n;
  return true;
}

static void read_fault(lockstep_knobs_t *k)
{
  const char *want = "a comma list of overcount[:N] undercount-rep lost-pmi[:N] no-pmu "
                     "vmx-locked no-vmx no-ept no-unrestricted no-mtf atom";
  const char *s = getenv("LOCKSTEP_FAULT");
  if (! s || ! *s) return;
  const char *p = s;
  while (true) {
    if (word(&p, "overcount")) {
      Bit64u n = colon(&p) ? number("LOCKSTEP_FAULT", s, &p, want) : 16;
      if (n < 1 || n > 1000000000) bad_knob("LOCKSTEP_FAULT", s, want);
      k->overcount = (Bit32u) n;
    }
    else if (word(&p, "lost-pmi")) {
      Bit64u n = colon(&p) ? number("LOCKSTEP_FAULT", s, &p, want) : 4;
      if (n < 1 || n > 1000000000) bad_knob("LOCKSTEP_FAULT", s, want);
      k->lost_pmi = (Bit32u) n;
    }
    else if (word(&p, "undercount-rep")) k->undercount_rep = true;
    else if (word(&p, "no-pmu")) k->pmu = { 0, 0, 0, 0 };
    else if (word(&p, "vmx-locked")) k->vmx_locked = true;
    else if (word(&p, "no-vmx")) k->no_vmx = true;
    else if (word(&p, "no-ept")) k->no_ept = true;
    else if (word(&p, "no-unrestricted")) k->no_unrestricted = true;
    else if (word(&p, "no-mtf")) k->no_mtf = true;
    else if (word(&p, "atom")) k->atom = true;
    else bad_knob("LOCKSTEP_FAULT", s, want);
    if (*p == 0) break;
    if (*p != ',') bad_knob("LOCKSTEP_FAULT", s, want);
    p++;
  }
}

// A LOCKSTEP_ variable that nobody reads may be a mistyped one. It may also be
// meant for the program that started us, so it is only pointed out.
extern char **environ;

static void point_out_unknown(void)
{
  static const char *known[] = { "SEED", "SKID", "PMU", "TLB", "FAULT", NULL };
  for (char **e = environ; *e; e++) {
    if (strncmp(*e, "LOCKSTEP_", 9)) continue;
    const char *name = *e + 9;
    size_t len = strcspn(name, "=");
    if (! strncmp(name, "NET", 3)) continue;    // read by the lock-step network module
    bool found = false;
    for (unsigned n = 0; known[n]; n++)
      if (strlen(known[n]) == len && ! strncmp(known[n], name, len)) found = true;
    if (! found) fprintf(stderr, "lockstep: not a knob of the emulator: LOCKSTEP_%.*s\n", (int) len, name);
  }
}

const lockstep_knobs_t *lockstep_knobs(void)
{
  static lockstep_knobs_t knobs;
  static bool read = false;
  if (! read) {
    read = true;
    memset(&knobs, 0, sizeof(knobs));
    point_out_unknown();
    read_seed(&knobs);
    read_skid(&knobs);
    read_pmu(&knobs);
    read_tlb(&knobs);
    read_fault(&knobs);   // after read_pmu: no-pmu wins
  }
  return &knobs;
}

Bit64u lockstep_clock_usec(void)
{
  static int host = -1;
  if (host < 0) host = SIM->get_param_enum(BXPN_CLOCK_SYNC)->get() != BX_CLOCK_SYNC_NONE;
  return host ? bx_get_realtime64_usec() : bx_pc_system.time_usec();
}

Bit8u lockstep_random8(void)
{
  static lockstep_rng_t rng;
  static bool seeded = false;
  if (! seeded) {
    seeded = true;
    rng.seed(lockstep_knobs()->seed, 0);
  }
  return (Bit8u)(rng.next() >> 56);
}

//
// The CPU's features
//

Bit32u lockstep_vmx_absent(void)
{
  const lockstep_knobs_t *k = lockstep_knobs();
  Bit32u absent = 0;
  if (k->pmu.version < 2) absent |= BX_VMX_PERF_GLOBAL_CTRL;
  if (k->no_mtf) absent |= BX_VMX_MONITOR_TRAP_FLAG;
  if (k->no_unrestricted) absent |= BX_VMX_UNRESTRICTED_GUEST;
  if (k->no_ept) absent |= BX_VMX_EPT | BX_VMX_UNRESTRICTED_GUEST | BX_VMX_EPTP_SWITCHING | BX_VMX_EPT_ACCESS_DIRTY |
                           BX_VMX_EPT_EXCEPTION | BX_VMX_PML | BX_VMX_SPP | BX_VMX_MBE_CONTROL;
  return absent;
}

// BIOS-bochs locks the MSR with VMXON on (5); a firmware that forbids VMX locks it
// with VMXON off (1).
Bit32u lockstep_feature_control(Bit32u written)
{
  return lockstep_knobs()->vmx_locked ? 1 : written;
}

static void cpuid_leaf_1(cpuid_function_t *leaf)
{
  const lockstep_knobs_t *k = lockstep_knobs();
  if (k->atom) leaf->eax = 0x000506f1;    // Denverton, a Goldmont server: model 5Fh
  // not modelled: debug store (BTS, PEBS), SpeedStep, thermal monitors
  leaf->ecx &= ~(BX_CPUID_STD1_ECX_DTES64 | BX_CPUID_STD1_ECX_DS_CPL |
                 BX_CPUID_STD1_ECX_EST | BX_CPUID_STD1_ECX_THERMAL_MONITOR2);
  leaf->edx &= ~(BX_CPUID_STD1_EDX_DEBUG_STORE | BX_CPUID_STD1_EDX_ACPI |
                 BX_CPUID_STD1_EDX_THERMAL_MONITOR | BX_CPUID_STD1_EDX_PBE);
  if (k->pmu.version) leaf->ecx |= BX_CPUID_STD1_ECX_PDCM;
  else leaf->ecx &= ~BX_CPUID_STD1_ECX_PDCM;
}

static void cpuid_leaf_A(cpuid_function_t *leaf)
{
  const lockstep_pmu_t *m = &lockstep_knobs()->pmu;
  leaf->eax = leaf->ebx = leaf->ecx = leaf->edx = 0;
  if (! m->version) return;
  leaf->eax = m->version | (m->general << 8) | (m->width << 16) | (7 << 24);
  leaf->ebx = 0x58;   // no last-level cache references and misses, no mispredicted branches
  if (m->version >= 2) leaf->edx = m->fixed | (m->width << 5);
  if (m->version >= 5) {
    leaf->ecx = (1 << m->fixed) - 1;
    leaf->edx |= 1 << 15;   // AnyThread deprecated
  }
}

// The TSC, the APIC timer and the crystal all step once per tick: ips of them a second.
static void cpuid_frequency(Bit32u function, cpuid_function_t *leaf)
{
  Bit32u hz = (Bit32u) SIM->get_param_num(BXPN_IPS)->get();
  if (function == 0x15) {
    leaf->eax = leaf->ebx = 1;
    leaf->ecx = hz;
    leaf->edx = 0;
  }
  else {
    Bit32u mhz = hz / 1000000;
    leaf->eax = leaf->ebx = leaf->ecx = mhz ? mhz : 1;
    leaf->edx = 0;
  }
}

void lockstep_cpuid(Bit32u function, cpuid_function_t *leaf)
{
  cpuid_function_t leaf0;
  BX_CPU(0)->cpuid->get_cpuid_leaf(0, 0, &leaf0);
  if (leaf0.ebx != 0x756e6547) return;                  // "Genu"ineIntel only
  if (function > leaf0.eax && (function < 0x80000000 || function > 0x80000008)) function = leaf0.eax;
  if (function > leaf0.eax) return;
  switch(function) {
    case 1: cpuid_leaf_1(leaf); break;
    case 6:                                             // ARAT only; no MPERF/APERF, no thermal interrupts
      leaf->eax &= 4;
      leaf->ebx = leaf->ecx = leaf->edx = 0;
      break;
    case 0xa: cpuid_leaf_A(leaf); break;
    case 0x15: case 0x16: cpuid_frequency(function, leaf); break;
  }
}

//
// Zeroed memory: stock reads members of heap objects before it sets them (VMX
// capabilities, VGA timers, MONITOR), which makes two runs differ. All of C++'s
// heap starts as zeros here.
//

static void *zeroed(size_t size, size_t align)
{
  size = (size + align - 1) & ~(align - 1);
  if (size == 0) size = align;
  void *p;
  if (align <= 16) p = calloc(1, size);
  else {
    p = aligned_alloc(align, size);
    if (p) memset(p, 0, size);
  }
  if (! p) {
    fprintf(stderr, "lockstep: out of memory, %lu bytes wanted\n", (unsigned long) size);
    exit(2);
  }
  return p;
}

void *operator new(size_t n) { return zeroed(n, 16); }
void *operator new[](size_t n) { return zeroed(n, 16); }
void *operator new(size_t n, std::align_val_t a) { return zeroed(n, (size_t) a); }
void *operator new[](size_t n, std::align_val_t a) { return zeroed(n, (size_t) a); }
void operator delete(void *p) noexcept { free(p); }
void operator delete[](void *p) noexcept { free(p); }
void operator delete(void *p, size_t) noexcept { free(p); }
void operator delete[](void *p, size_t) noexcept { free(p); }
void operator delete(void *p, std::align_val_t) noexcept { free(p); }
void operator delete[](void *p, std::align_val_t) noexcept { free(p); }
void operator delete(void *p, size_t, std::align_val_t) noexcept { free(p); }
void operator delete[](void *p, size_t, std::align_val_t) noexcept { free(p); }

//
// The end
//

static bool reported = false;

void lockstep_report(int code)
{
  if (reported) return;
  reported = true;
  if (code < 0) fprintf(stderr, "lockstep: exit code=- ticks=" FMT_LL "u\n", bx_pc_system.time_ticks());
  else fprintf(stderr, "lockstep: exit code=%d ticks=" FMT_LL "u\n", code, bx_pc_system.time_ticks());
}

void lockstep_exit(int code)
{
  lockstep_report(code);
  bx_user_quit = 1;
  bx_atexit();
  fflush(NULL);
  exit(code);
}
