/////////////////////////////////////////////////////////////////////////
// Lockstep: architectural performance counters (SDM vol. 3B, chapter 21)
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
//
// The instruction loop keeps two things: icount with 'excess' (what did not
// retire), and one total per class of branch. Counters are brought up to date
// ("synced") only when something that matters changes: a PMU MSR is touched, the
// CPL changes, the VM is entered or left, an overflow comes near. The loop pays
// one compare per trace, icount >= deadline; within BX_PMU_MARGIN of an overflow
// it goes one instruction at a time, so an overflow is seen at its own boundary.
//
// One cycle is one icount step; halted time is not counted. A counter with edge
// detection counts nothing (edges of what retires are not modelled); cmask and
// inv follow from "at most one instruction per cycle".

#define NEED_CPU_REG_SHORTCUTS 1
#include "bochs.h"
#include "cpu.h"
#define LOG_THIS BX_CPU_THIS_PTR

#include "apic.h"
#include "msr.h"

#define PM (BX_CPU_THIS_PTR perfmon)

// a trace has at most BX_MAX_TRACE_LENGTH instructions: stop well before
#define BX_PMU_MARGIN (2*BX_MAX_TRACE_LENGTH)

#define BIT64(n) (BX_CONST64(1) << (n))

// IA32_PERFEVTSELx
#define EVTSEL_USR    BIT64(16)
#define EVTSEL_OS     BIT64(17)
#define EVTSEL_EDGE   BIT64(18)
#define EVTSEL_INT    BIT64(20)
#define EVTSEL_ANY    BIT64(21)
#define EVTSEL_EN     BIT64(22)
#define EVTSEL_INV    BIT64(23)
#define EVTSEL_CMASK(sel) (((sel) >> 24) & 0xff)

// nibble of IA32_FIXED_CTR_CTRL
#define FIXED_OS   1
#define FIXED_USR  2
#define FIXED_ANY  4
#define FIXED_PMI  8

// IA32_PERF_GLOBAL_STATUS
#define STATUS_LBR_FRZ   BIT64(58)
#define STATUS_CTR_FRZ   BIT64(59)
#define STATUS_UNCORE    BIT64(61)
#define STATUS_DSBUF     BIT64(62)
#define STATUS_CONDCHGD  BIT64(63)

// IA32_DEBUGCTL
#define DEBUGCTL_FREEZE_PMI  BIT64(12)
#define DEBUGCTL_FREEZE_SMM  BIT64(14)
// LBR and BTF are kept but do nothing; TR, BTS, BTINT, BTS_OFF_*, FREEZE_LBRS likewise
#define DEBUGCTL_WRITABLE    (BX_CONST64(0x1fc3) | DEBUGCTL_FREEZE_SMM)

// IA32_MISC_ENABLE: what software may change, and what is fixed
#define MISC_FAST_STRINGS  BIT64(0)
#define MISC_PERFMON       BIT64(7)
#define MISC_NO_BTS        BIT64(11)
#define MISC_NO_PEBS       BIT64(12)
#define MISC_MONITOR       BIT64(18)
#define MISC_WRITABLE      (MISC_FAST_STRINGS | BIT64(3) | BIT64(16))

#define MSR_PLATFORM_ID       0x017
#define MSR_MICROCODE         0x08b
#define MSR_MISC_ENABLE       0x1a0
#define MSR_PMC0              0x0c1
#define MSR_PERFEVTSEL0       0x186
#define MSR_DEBUGCTL          0x1d9
#define MSR_FIXED_CTR0        0x309
#define MSR_PERF_CAPABILITIES 0x345
#define MSR_FIXED_CTR_CTRL    0x38d
#define MSR_GLOBAL_STATUS     0x38e
#define MSR_GLOBAL_CTRL       0x38f
#define MSR_GLOBAL_RESET      0x390   // GLOBAL_OVF_CTRL before version 4
#define MSR_GLOBAL_SET        0x391
#define MSR_GLOBAL_INUSE      0x392
#define MSR_A_PMC0            0x4c1

// a revision that no erratum workaround of Linux asks more than, in bits 63:32
#define MICROCODE_REVISION    (BX_CONST64(0x02007006) << 32)

#define CAP_FREEZE_SMM        BIT64(12)
#define CAP_FULL_WIDTH        BIT64(13)

static inline const lockstep_pmu_t *shape(void) { return &lockstep_knobs()->pmu; }
static inline Bit64u width_mask(void) { return BIT64(shape()->width) - 1; }
static inline bool any_thread_valid(void) { return shape()->version == 3 || shape()->version == 4; }

static Bit64u evtsel_mask(void)
{
  return BX_CONST64(0xffffffff) & ~(any_thread_valid() ? 0 : EVTSEL_ANY);
}

static Bit64u fixed_ctrl_mask(void)
{
  Bit64u mask = 0;
  for (unsigned n = 0; n < shape()->fixed; n++)
    mask |= (Bit64u)(any_thread_valid() ? 0xf : 0xf & ~FIXED_ANY) << (4*n);
  return mask;
}

Bit64u BX_CPU_C::perfmon_global_mask(void)
{
  return (BIT64(shape()->general) - 1) | ((BIT64(shape()->fixed) - 1) << 32);
}

static Bit64u status_mask(Bit64u counters)
{
  Bit64u mask = counters | STATUS_DSBUF | STATUS_CONDCHGD;
  if (shape()->version >= 3) mask |= STATUS_UNCORE;
  if (shape()->version >= 4) mask |= STATUS_LBR_FRZ | STATUS_CTR_FRZ;
  return mask;
}

void BX_CPU_C::perfmon_reset(void)
{
  const lockstep_knobs_t *k = lockstep_knobs();
  Bit64u cpu = BX_CPU_ID;
  memset(&PM, 0, sizeof(PM));
  PM.skid_rng.seed(k->skid_seed, 2*cpu + 1);
  PM.speculation_rng.seed(k->tlb_seed, 2*cpu + 2);
  PM.misc_enable = MISC_FAST_STRINGS;
  // power-up value: the general counters are globally enabled
  PM.global_ctrl = BIT64(shape()->general) - 1;
  PM.pmi_due = BX_PMU_NEVER;
  PM.speculation_due = BX_CPU_THIS_PTR icount + speculation_interval();
  PM.seen[BX_PMU_CYCLES] = PM.seen[BX_PMU_INSTRUCTIONS] = BX_CPU_THIS_PTR icount;
  perfmon_set_deadline();
}

//
// What counts what
//

#define SRC(n) (1 << (n))

// Skylake's BR_INST_RETIRED: umask bits add up; Ice Lake's 11h (taken 01h + not
// taken 10h) therefore gives all conditional branches here too.
static unsigned branch_sources(unsigned umask)
{
  const unsigned all = SRC(BX_PMU_BRANCHES) - 1;
  const unsigned conditional = SRC(BX_PMU_TAKEN) | SRC(BX_PMU_NOT_TAKEN);
  if (umask == 0) return all;
  unsigned s = 0;
  if (umask & 0x01) s |= conditional;
  if (umask & 0x02) s |= SRC(BX_PMU_CALL);
  if (umask & 0x04) s |= all;
  if (umask & 0x08) s |= SRC(BX_PMU_RETURN);
  if (umask & 0x10) s |= SRC(BX_PMU_NOT_TAKEN);
  if (umask & 0x20) s |= SRC(BX_PMU_TAKEN) | SRC(BX_PMU_JUMP) | SRC(BX_PMU_CALL) | SRC(BX_PMU_RETURN);
  if (umask & 0x40) s |= SRC(BX_PMU_FAR);
  return s;
}

static unsigned event_sources(Bit64u sel)
{
  switch(sel & 0xffff) {
    case 0x00c0: return SRC(BX_PMU_INSTRUCTIONS);
    case 0x003c:                            // unhalted core cycles
    case 0x013c: return SRC(BX_PMU_CYCLES); // unhalted reference cycles
  }
  if ((sel & 0xff) == 0xc4) return branch_sources((sel >> 8) & 0xff);
  return 0;
}

// Counters stand still: CTR_FRZ after a PMI, FREEZE_WHILE_SMM in SMM.
static inline bool frozen(const bx_perfmon_t *pm)
{
  return pm->smm_frozen || (pm->global_status & STATUS_CTR_FRZ);
}

struct counter_t {
  Bit64u  *value;
  unsigned sources;     // set of SRC()
  bool     complement;  // counts the cycles without the event
  bool     pmi;
  unsigned status_bit;
};

// Describes counter n (general first, then fixed) as it counts now at this
// privilege level; false when it does not count.
static bool counter(bx_perfmon_t *pm, unsigned n, bool user, counter_t *c)
{
  const unsigned general = shape()->general;
  c->complement = false;
  if (n < general) {
    Bit64u sel = pm->evtsel[n];
    c->status_bit = n;
    c->value = &pm->pmc[n];
    c->pmi = (sel & EVTSEL_INT) != 0;
    if (! (sel & EVTSEL_EN) || ! ((pm->global_ctrl >> n) & 1)) return false;
    if (! (sel & (user ? EVTSEL_USR : EVTSEL_OS))) return false;
    c->sources = event_sources(sel);
    if (! c->sources || (sel & EVTSEL_EDGE)) return false;
    unsigned cmask = EVTSEL_CMASK(sel);
    if (cmask == 0) return true;            // inv without cmask means nothing
    bool inv = (sel & EVTSEL_INV) != 0;
    if (cmask == 1) { c->complement = inv; return true; }
    // two and more of one event in one cycle never happen here
    c->sources = SRC(BX_PMU_CYCLES);
    return inv;
  }
  n -= general;
  unsigned ctl = (unsigned)(pm->fixed_ctrl >> (4*n)) & 0xf;
  c->status_bit = 32 + n;
  c->value = &pm->fixed[n];
  c->pmi = (ctl & FIXED_PMI) != 0;
  if (! ((pm->global_ctrl >> (32 + n)) & 1)) return false;
  if (! (ctl & (user ? FIXED_USR : FIXED_OS))) return false;
  c->sources = SRC(n == 0 ? BX_PMU_INSTRUCTIONS : BX_PMU_CYCLES);
  return true;
}

#define COUNTERS (shape()->general + shape()->fixed)

//
// Bringing counters up to date
//

static Bit64u increment(const counter_t *c, const Bit64u *delta)
{
  Bit64u sum = 0;
  for (unsigned s = 0; s < BX_PMU_SOURCES; s++)
    if (c->sources & SRC(s)) sum += delta[s];
  return c->complement ? delta[BX_PMU_CYCLES] - sum : sum;
}

void BX_CPU_C::perfmon_sync(unsigned current)
{
  if (PM.in_rep) PM.settle_rep(BX_CPU_THIS_PTR icount);
  if (! shape()->version) return;

  Bit64u total[BX_PMU_SOURCES], delta[BX_PMU_SOURCES], any = 0;
  for (unsigned s = 0; s < BX_PMU_BRANCHES; s++) total[s] = PM.branches[s];
  total[BX_PMU_INSTRUCTIONS] = BX_CPU_THIS_PTR icount - PM.excess + current;
  total[BX_PMU_CYCLES] = BX_CPU_THIS_PTR icount + current;
  for (unsigned s = 0; s < BX_PMU_SOURCES; s++) {
    // a total seen with 'current' may be ahead by the instruction in progress
    delta[s] = ((Bit64s)(total[s] - PM.seen[s]) > 0) ? total[s] - PM.seen[s] : 0;
    PM.seen[s] += delta[s];
    any |= delta[s];
  }
  if (! any || ! PM.active || ! PM.global_ctrl || frozen(&PM)) return;

  bool want_pmi = false;
  for (unsigned n = 0; n < COUNTERS; n++) {
    counter_t c;
    if (! counter(&PM, n, USER_PL, &c)) continue;
    Bit64u v = *c.value + increment(&c, delta);
    *c.value = v & width_mask();
    if (v > width_mask()) {
      PM.global_status |= BIT64(c.status_bit);
      if (c.pmi) want_pmi = true;
    }
  }
  if (want_pmi && PM.pmi_due == BX_PMU_NEVER) {
    const lockstep_knobs_t *k = lockstep_knobs();
    PM.pmi_due = total[BX_PMU_INSTRUCTIONS] + k->skid_min +
                 PM.skid_rng.below(k->skid_max - k->skid_min + 1);
  }
}

// The icount at which the instruction loop has to look again.
void BX_CPU_C::perfmon_set_deadline(void)
{
  Bit64u icount = BX_CPU_THIS_PTR icount, left = BX_PMU_NEVER;
  if (PM.active && PM.global_ctrl && ! frozen(&PM)) {
    for (unsigned n = 0; n < COUNTERS; n++) {
      counter_t c;
      // no source grows faster than icount
      if (counter(&PM, n, USER_PL, &c) && c.pmi) {
        Bit64u room = width_mask() + 1 - *c.value;
        if (room < left) left = room;
      }
    }
  }
  // a PMI on its way: look at every boundary, the CPU may halt before it comes
  if (PM.pmi_due != BX_PMU_NEVER) left = 0;
  if (PM.speculation_due != BX_PMU_NEVER) {
    Bit64u room = (PM.speculation_due > icount) ? PM.speculation_due - icount : 0;
    if (room < left) left = room;
  }
  if (left == BX_PMU_NEVER) PM.deadline = BX_PMU_NEVER;
  else PM.deadline = (left > BX_PMU_MARGIN) ? icount + left - BX_PMU_MARGIN : icount;
}

static bool pmi_lost(bx_perfmon_t *pm)
{
  unsigned every = lockstep_knobs()->lost_pmi;
  return every && ++pm->pmis % every == 0;
}

// Called by the instruction loop at an instruction boundary when icount >= deadline.
void BX_CPU_C::perfmon_boundary(void)
{
  perfmon_sync(0);
  if (PM.pmi_due != BX_PMU_NEVER) {
    Bit64u retired = BX_CPU_THIS_PTR icount - PM.excess;
    if ((Bit64s)(retired - PM.pmi_due) >= 0 || BX_CPU_THIS_PTR activity_state != BX_ACTIVITY_STATE_ACTIVE) {
      PM.pmi_due = BX_PMU_NEVER;
      if (PM.debugctl & DEBUGCTL_FREEZE_PMI) {
        if (shape()->version >= 4) PM.global_status |= STATUS_CTR_FRZ;
        else PM.global_ctrl = 0;
      }
      if (! pmi_lost(&PM)) BX_CPU_THIS_PTR lapic->perfmon_interrupt();
    }
  }
  if (BX_CPU_THIS_PTR icount >= PM.speculation_due) speculate();
  perfmon_set_deadline();
}

//
// REP: one instruction, retired at its end (SDM vol. 3B, 21.2.1.2)
//

void bx_perfmon_t::leave_rep(Bit64u icount)
{
  settle_rep(icount);
  in_rep = false;
  if (lockstep_knobs()->undercount_rep) rep_split_rip = rep_rip;
}

#define REPEAT(rep, iterations) {                                               \
  if (! (rep)) { iterations(i, execute); return; }                              \
  PM.in_rep = true;                                                             \
  PM.rep_start = BX_CPU_THIS_PTR icount;                                        \
  PM.rep_rip = BX_CPU_THIS_PTR prev_rip;                                        \
  iterations(i, execute);                                                       \
  PM.in_rep = false;                                                            \
  PM.excess += BX_CPU_THIS_PTR icount - PM.rep_start;                           \
  if (RIP == BX_CPU_THIS_PTR prev_rip) {                                        \
    PM.excess++;    /* stopped half-way: committed by the handler, not retired */ \
    PM.rep_split_rip = RIP;                                                     \
  }                                                                             \
  else if (PM.rep_split_rip == BX_CPU_THIS_PTR prev_rip && PM.rep_split_rip) {  \
    PM.rep_split_rip = 0;                                                       \
    if (lockstep_knobs()->undercount_rep) PM.excess++;                          \
  }                                                                             \
}

void BX_CPP_AttrRegparmN(2) BX_CPU_C::repeat(bxInstruction_c *i, BxRepIterationPtr_tR execute)
{
  REPEAT(i->repUsedL(), repeat_iterations);
}

void BX_CPP_AttrRegparmN(2) BX_CPU_C::repeat_ZF(bxInstruction_c *i, BxRepIterationPtr_tR execute)
{
  REPEAT(i->lockRepUsedValue() >= 2, repeat_ZF_iterations);
}

//
// VM entry and exit (SDM vol. 3C, 28.3.2.1, 29.3.1, 29.5.1), SMM
//

bool BX_CPU_C::perfmon_valid_debugctl(Bit64u val)
{
  return (val & ~DEBUGCTL_WRITABLE) == 0;
}

// VM entry loads guest state: VMLAUNCH/VMRESUME retires, for the host, whatever
// event delivery brings; the handler's own commit is taken back by abandon() or
// by its caller.
void BX_CPU_C::perfmon_vmenter(const Bit64u *debugctl, const Bit64u *global_ctrl)
{
  PM.excess--;
  perfmon_sync(0);
  if (debugctl) PM.debugctl = *debugctl;
  if (global_ctrl) PM.global_ctrl = *global_ctrl & perfmon_global_mask();
  perfmon_set_deadline();
}

void BX_CPU_C::perfmon_vmexit_save(void)
{
  unsigned every = lockstep_knobs()->overcount;
  if (every && ++PM.exits % every == 0) {   // injected fault
    PM.excess--;
    PM.branches[BX_PMU_TAKEN]++;
  }
  perfmon_sync(0);
}

void BX_CPU_C::perfmon_vmexit_load(const Bit64u *global_ctrl)
{
  PM.debugctl = 0;
  if (global_ctrl) PM.global_ctrl = *global_ctrl & perfmon_global_mask();
  perfmon_set_deadline();
}

void BX_CPU_C::perfmon_smm(bool enter)
{
  perfmon_sync(! enter);
  PM.smm_frozen = enter && (PM.debugctl & DEBUGCTL_FREEZE_SMM);
  perfmon_set_deadline();
}

//
// MSRs
//

bool BX_CPU_C::perfmon_is_msr(Bit32u index)
{
  if (index == MSR_PLATFORM_ID || index == MSR_MICROCODE) return true;
  if (index < MSR_PMC0 || index > MSR_A_PMC0 + BX_PMU_MAX_GP - 1) return false;
  return index <= MSR_PMC0 + BX_PMU_MAX_GP - 1 ||
         (index >= MSR_PERFEVTSEL0 && index < MSR_PERFEVTSEL0 + BX_PMU_MAX_GP) ||
         index == MSR_MISC_ENABLE || index == MSR_DEBUGCTL ||
         (index >= MSR_FIXED_CTR0 && index < MSR_FIXED_CTR0 + BX_PMU_MAX_FIXED) ||
         index == MSR_PERF_CAPABILITIES ||
         (index >= MSR_FIXED_CTR_CTRL && index <= MSR_GLOBAL_INUSE) ||
         index >= MSR_A_PMC0;
}

static Bit64u misc_enable(const bx_perfmon_t *pm)
{
  return pm->misc_enable | (shape()->version ? MISC_PERFMON : 0) | MISC_NO_BTS | MISC_NO_PEBS | MISC_MONITOR;
}

static Bit64u counters_in_use(const bx_perfmon_t *pm)
{
  Bit64u used = 0;
  bool pmi = false;
  for (unsigned n = 0; n < shape()->general; n++) {
    if (pm->evtsel[n] & 0xff) used |= BIT64(n);
    if (pm->evtsel[n] & EVTSEL_INT) pmi = true;
  }
  for (unsigned n = 0; n < shape()->fixed; n++) {
    unsigned ctl = (unsigned)(pm->fixed_ctrl >> (4*n)) & 0xf;
    if (ctl & (FIXED_OS | FIXED_USR)) used |= BIT64(32 + n);
    if (ctl & FIXED_PMI) pmi = true;
  }
  return used | (pmi ? BIT64(63) : 0);
}

// The counter that an MSR names, or NULL.
static Bit64u *counter_msr(bx_perfmon_t *pm, Bit32u index, bool *legacy)
{
  *legacy = false;
  if (index >= MSR_PMC0 && index < MSR_PMC0 + shape()->general) {
    *legacy = true;
    return &pm->pmc[index - MSR_PMC0];
  }
  if (index >= MSR_A_PMC0 && index < MSR_A_PMC0 + shape()->general) return &pm->pmc[index - MSR_A_PMC0];
  if (index >= MSR_FIXED_CTR0 && index < MSR_FIXED_CTR0 + shape()->fixed) return &pm->fixed[index - MSR_FIXED_CTR0];
  return NULL;
}

bool BX_CPU_C::perfmon_rdmsr(Bit32u index, Bit64u *val)
{
  const unsigned version = shape()->version;
  bool legacy;

  if (index == MSR_PLATFORM_ID) { *val = 0; return true; }
  if (index == MSR_MICROCODE) { *val = MICROCODE_REVISION; return true; }
  if (index == MSR_DEBUGCTL) { *val = PM.debugctl; return true; }
  if (index == MSR_MISC_ENABLE) { *val = misc_enable(&PM); return true; }
  if (! version) return false;

  perfmon_sync(0);
  perfmon_set_deadline();
  Bit64u *c = counter_msr(&PM, index, &legacy);
  if (c) { *val = *c; return true; }
  if (index >= MSR_PERFEVTSEL0 && index < MSR_PERFEVTSEL0 + shape()->general) {
    *val = PM.evtsel[index - MSR_PERFEVTSEL0];
    return true;
  }
  if (index == MSR_PERF_CAPABILITIES) { *val = CAP_FULL_WIDTH | CAP_FREEZE_SMM; return true; }
  if (version < 2) return false;
  switch(index) {
    case MSR_FIXED_CTR_CTRL: *val = PM.fixed_ctrl; break;
    case MSR_GLOBAL_STATUS: *val = PM.global_status; break;
    case MSR_GLOBAL_CTRL: *val = PM.global_ctrl; break;
    case MSR_GLOBAL_RESET: *val = 0; break;
    case MSR_GLOBAL_SET: if (version < 4) return false; *val = 0; break;
    case MSR_GLOBAL_INUSE: if (version < 4) return false; *val = counters_in_use(&PM); break;
    default: return false;
  }
  return true;
}

// Where the value goes, after the checks; NULL = #GP(0). *op says how.
enum { WRITE_STORE, WRITE_CLEAR_STATUS, WRITE_SET_STATUS };

static Bit64u *write_target(bx_perfmon_t *pm, Bit32u index, Bit64u *val, Bit64u globals, unsigned *op)
{
  const unsigned version = shape()->version;
  bool legacy;
  *op = WRITE_STORE;
  if (index == MSR_DEBUGCTL) return (*val & ~DEBUGCTL_WRITABLE) ? NULL : &pm->debugctl;
  if (index == MSR_MISC_ENABLE) {
    Bit64u changed = *val ^ misc_enable(pm);
    // the availability bits are read-only: a write to them is ignored
    if (changed & ~(MISC_WRITABLE | MISC_PERFMON | MISC_NO_BTS | MISC_NO_PEBS)) return NULL;
    *val &= MISC_WRITABLE;
    return &pm->misc_enable;
  }
  if (! version) return NULL;
  Bit64u *c = counter_msr(pm, index, &legacy);
  if (c) {
    if (legacy) *val = (Bit64u)(Bit64s)(Bit32s)(Bit32u) *val & width_mask();
    return (*val & ~width_mask()) ? NULL : c;
  }
  if (index >= MSR_PERFEVTSEL0 && index < MSR_PERFEVTSEL0 + shape()->general)
    return (*val & ~evtsel_mask()) ? NULL : &pm->evtsel[index - MSR_PERFEVTSEL0];
  if (version < 2) return NULL;
  switch(index) {
    case MSR_FIXED_CTR_CTRL: return (*val & ~fixed_ctrl_mask()) ? NULL : &pm->fixed_ctrl;
    case MSR_GLOBAL_CTRL: return (*val & ~globals) ? NULL : &pm->global_ctrl;
    case MSR_GLOBAL_RESET:
      *op = WRITE_CLEAR_STATUS;
      return (*val & ~status_mask(globals)) ? NULL : &pm->global_status;
    case MSR_GLOBAL_SET:
      *op = WRITE_SET_STATUS;
      return (version < 4 || (*val & ~(status_mask(globals) & ~STATUS_CONDCHGD))) ? NULL : &pm->global_status;
  }
  return NULL;    // GLOBAL_STATUS, GLOBAL_INUSE, PERF_CAPABILITIES are read-only
}

bool BX_CPU_C::perfmon_wrmsr(Bit32u index, Bit64u val)
{
  unsigned op;
  if (index == MSR_MICROCODE) return true;    // software clears it before it asks; nothing to clear
  Bit64u *target = write_target(&PM, index, &val, perfmon_global_mask(), &op);
  if (! target) return false;
  // WRMSR itself still counts as configured before it
  perfmon_sync(PM.current);
  switch(op) {
    case WRITE_STORE: *target = val; break;
    case WRITE_CLEAR_STATUS: *target &= ~val; break;
    case WRITE_SET_STATUS: *target |= val; break;
  }
  PM.active = PM.fixed_ctrl != 0;
  for (unsigned n = 0; n < shape()->general; n++)
    if (PM.evtsel[n] & EVTSEL_EN) PM.active = true;
  perfmon_set_deadline();
  return true;
}

// CR4.PCE, CPL and RDPMC exiting were looked at by the caller
bool BX_CPU_C::perfmon_rdpmc(Bit32u ecx, Bit64u *val)
{
  if (! shape()->version) return false;
  perfmon_sync(0);
  perfmon_set_deadline();
  if (ecx & 0x40000000) {
    Bit32u n = ecx & ~0x40000000;
    if (n >= shape()->fixed) return false;
    *val = PM.fixed[n];
  }
  else {
    if (ecx >= shape()->general) return false;
    *val = PM.pmc[ecx];
  }
  return true;
}
