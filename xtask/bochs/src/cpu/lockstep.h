/////////////////////////////////////////////////////////////////////////
// Lockstep: the LOCKSTEP_* knobs of the emulated machine, seeded random numbers, exit
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
#ifndef BX_LOCKSTEP_H
#define BX_LOCKSTEP_H

// A 64-bit generator (splitmix64): small, seedable, one stream per subject, so
// that drawing from one (RDRAND) never shifts another (PMI skid).
struct lockstep_rng_t {
  Bit64u state;
  void   seed(Bit64u s, Bit64u stream) { state = s * BX_CONST64(0xD1342543DE82EF95) + stream; next(); }
  Bit64u next() {
    Bit64u z = (state += BX_CONST64(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * BX_CONST64(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * BX_CONST64(0x94D049BB133111EB);
    return z ^ (z >> 31);
  }
  Bit64u below(Bit64u n) { return n ? next() % n : 0; }   // bias is of no matter here
};

// CPUID leaf 0Ah in numbers; version 0 = no performance counters.
struct lockstep_pmu_t {
  unsigned version;   // 1..5
  unsigned general;   // IA32_PMCx, 1..8
  unsigned fixed;     // IA32_FIXED_CTRx, 0..3
  unsigned width;     // bits of every counter, 32..48
};

// What the environment asked for. Read once, before the first CPU exists; a
// value that is not understood ends the program (exit code 2).
struct lockstep_knobs_t {
  Bit64u seed;                                    // LOCKSTEP_SEED
  Bit32u skid_min, skid_max; Bit64u skid_seed;    // LOCKSTEP_SKID, instructions
  lockstep_pmu_t pmu;                             // LOCKSTEP_PMU
  Bit64u tlb_seed; Bit32u tlb_walks, tlb_evictions; // LOCKSTEP_TLB, per million instructions
  // LOCKSTEP_FAULT
  Bit32u overcount;       // one count too many every so many VM exits; 0 = never
  Bit32u lost_pmi;        // every so many PMIs one vanishes; 0 = never
  bool   undercount_rep;  // a REP that was interrupted is never counted
  bool   vmx_locked, no_vmx, no_ept, no_unrestricted, no_mtf, atom;
};

const lockstep_knobs_t *lockstep_knobs(void);

// The CPU as the knobs shape it: which VMX features (BX_VMX_*) are taken away,
// what the firmware's write leaves in IA32_FEATURE_CONTROL, and the CPUID leaves that must
// agree with what is really modelled (counters, TSC rate).
struct cpuid_function_t;
Bit32u lockstep_vmx_absent(void);
Bit32u lockstep_feature_control(Bit32u written);
void   lockstep_cpuid(Bit32u function, struct cpuid_function_t *leaf);

// The "real" time of virtual timers: emulated time when clock sync=none. Stock runs a
// timer by the host's clock even if no device asks for one; it changes nothing a guest
// sees at once, but where REP and traces are cut, hence the cycle counters.
Bit64u lockstep_clock_usec(void);

// The hardware random generator's next byte: a function of LOCKSTEP_SEED.
Bit8u  lockstep_random8(void);

// End the emulator with a process exit code; prints the final tick count.
[[noreturn]] void lockstep_exit(int code);
// Called from bx_atexit(): prints the final tick count when nothing did yet.
void lockstep_report(int code);
// Registers the exit port (iodev/lockstep_port.cc).
void lockstep_init_ports(void);

#endif
