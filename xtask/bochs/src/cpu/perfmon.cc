/////////////////////////////////////////////////////////////////////////
// Architectural PMU model (spike): IA32_PMCx, IA32_FIXED_CTRx, PMI.
//
// Retired instructions = icount - excess.  icount is bumped by Bochs for each
// committed instruction, each REP iteration, each fault and each fault-like
// VM exit; the last three bump 'excess' as well.
// Counters are only brought up to date ("synced") when something that matters
// changes: PMU MSR access, CPL change, VM entry/exit, overflow boundary.
// The hot path pays one compare per trace: icount >= perfmon.deadline.
/////////////////////////////////////////////////////////////////////////

#define NEED_CPU_REG_SHORTCUTS 1
#include "bochs.h"
#include "cpu.h"
#define LOG_THIS BX_CPU_THIS_PTR

#include "apic.h"
#include "msr.h"
#include "lockstep.h"
#include <stdlib.h>

#define PM (BX_CPU_THIS_PTR perfmon)

// a trace has at most BX_MAX_TRACE_LENGTH instructions, stop well before
#define BX_PMU_MARGIN (2*BX_MAX_TRACE_LENGTH)

static lockstep_rng_t skid_rng;

static Bit32u perfmon_next_skid(void)
{
  const lockstep_knobs_t *k = lockstep_knobs();
  return k->skid_min + (Bit32u) skid_rng.below(k->skid_max - k->skid_min + 1);
}

void BX_CPU_C::perfmon_reset(void)
{
  memset(&PM, 0, sizeof(PM));
  PM.global_ctrl = (1 << BX_PMU_GP) - 1;   // power-up value: GP counters globally enabled
  PM.last_retired = PM.last_icount = BX_CPU_THIS_PTR icount;
  PM.deadline = PM.pmi_due = BX_PMU_NEVER;
}

// what does the counter count now: 0 nothing, 1 instructions, 2 cycles
// pmi: raise PMI on overflow
static unsigned perfmon_gp_mode(const bx_perfmon_t *pm, unsigned n, bool user, bool *pmi)
{
  Bit64u sel = pm->evtsel[n];
  *pmi = (sel >> 20) & 1;
  if (! ((pm->global_ctrl >> n) & 1) || ! (sel & (1 << 22))) return 0;
  if (! (sel & (user ? (1 << 16) : (1 << 17)))) return 0;
  switch(sel & 0xffff) {
    case 0x00c0: return 1;                 // INST_RETIRED.ANY_P
    case 0x003c: case 0x013c: return 2;    // unhalted core / reference cycles
    default: return 0;
  }
}

static unsigned perfmon_fixed_mode(const bx_perfmon_t *pm, unsigned n, bool user, bool *pmi)
{
  unsigned c = (pm->fixed_ctrl >> (4*n)) & 0xf;
  *pmi = (c >> 3) & 1;
  if (! ((pm->global_ctrl >> (32+n)) & 1)) return 0;
  if (! (c & (user ? 2 : 1))) return 0;
  return (n == 0) ? 1 : 2;
}

// bring the counters up to date; 'current' = 1 counts the instruction being
// executed now under the old configuration
void BX_CPU_C::perfmon_sync(unsigned current)
{
  Bit64u retired = BX_CPU_THIS_PTR icount - PM.excess + current, ic = BX_CPU_THIS_PTR icount + current;
  Bit64u d_ins = (retired > PM.last_retired) ? retired - PM.last_retired : 0;
  Bit64u d_cyc = (ic > PM.last_icount) ? ic - PM.last_icount : 0;
  if (d_ins) PM.last_retired = retired;
  if (d_cyc) PM.last_icount = ic;
  if (! (d_ins | d_cyc)) return;

  bool user = USER_PL, pmi, want_pmi = false;
  for (unsigned n=0; n < BX_PMU_GP + BX_PMU_FIXED; n++) {
    bool gp = n < BX_PMU_GP;
    unsigned f = n - BX_PMU_GP;
    unsigned mode = gp ? perfmon_gp_mode(&PM, n, user, &pmi) : perfmon_fixed_mode(&PM, f, user, &pmi);
    if (! mode) continue;
    Bit64u *c = gp ? &PM.pmc[n] : &PM.fixed[f];
    Bit64u v = *c + ((mode == 1) ? d_ins : d_cyc);
    *c = v & BX_PMU_WIDTH_MASK;
    if (v > BX_PMU_WIDTH_MASK) {
      PM.global_status |= BX_CONST64(1) << (gp ? n : 32+f);
      if (pmi) want_pmi = true;
    }
  }
  if (want_pmi && PM.pmi_due == BX_PMU_NEVER) {
    // overflow is detected at the boundary at which it happened
    PM.pmi_due = retired + perfmon_next_skid();
  }
}

// next icount at which the boundary has to be looked at
void BX_CPU_C::perfmon_set_deadline(void)
{
  Bit64u ic = BX_CPU_THIS_PTR icount, left = BX_PMU_NEVER;
  bool user = USER_PL, pmi;
  if (PM.global_ctrl) {
    for (unsigned n=0; n < BX_PMU_GP; n++)
      if (perfmon_gp_mode(&PM, n, user, &pmi) && pmi) {
        Bit64u l = BX_PMU_WIDTH_MASK + 1 - PM.pmc[n];
        if (l < left) left = l;
      }
    for (unsigned n=0; n < BX_PMU_FIXED; n++)
      if (perfmon_fixed_mode(&PM, n, user, &pmi) && pmi) {
        Bit64u l = BX_PMU_WIDTH_MASK + 1 - PM.fixed[n];
        if (l < left) left = l;
      }
  }
  if (PM.pmi_due != BX_PMU_NEVER) {
    Bit64u retired = ic - PM.excess;
    Bit64u l = (PM.pmi_due > retired) ? PM.pmi_due - retired : 0;
    if (l < left) left = l;
  }
  if (left == BX_PMU_NEVER) PM.deadline = BX_PMU_NEVER;
  else PM.deadline = (left > BX_PMU_MARGIN) ? ic + left - BX_PMU_MARGIN : ic;
}

// called by the cpu loop at an instruction boundary when icount >= deadline
void BX_CPU_C::perfmon_boundary(void)
{
  perfmon_sync(0);
  if (PM.pmi_due != BX_PMU_NEVER) {
    Bit64u retired = BX_CPU_THIS_PTR icount - PM.excess;
    if (retired >= PM.pmi_due || BX_CPU_THIS_PTR activity_state != BX_ACTIVITY_STATE_ACTIVE) {
      PM.pmi_due = BX_PMU_NEVER;
      if (PM.debugctl & (1 << 12)) {        // FREEZE_PERFMON_ON_PMI
        PM.global_status |= BX_CONST64(1) << 59;    // CTR_FRZ (v4)
        PM.global_ctrl = 0;
      }
      BX_CPU_THIS_PTR lapic->perfmon_interrupt();
    }
  }
  perfmon_set_deadline();
}

void BX_CPU_C::perfmon_cpl_change(void)
{
  perfmon_sync(0);      // old CPL: USER_PL is not updated yet
}

// VM entry: 'current' instruction is VMLAUNCH/VMRESUME and belongs to the host
void BX_CPU_C::perfmon_load_global_ctrl(Bit64u val, unsigned current)
{
  perfmon_sync(current);
  PM.global_ctrl = val & BX_PMU_GLOBAL_MASK;
  perfmon_set_deadline();
}

bool BX_CPU_C::perfmon_is_msr(Bit32u index)
{
  return (index >= 0xc1 && index < 0xc1 + BX_PMU_GP) || (index >= 0x4c1 && index < 0x4c1 + BX_PMU_GP) ||
         (index >= 0x186 && index < 0x186 + BX_PMU_GP) || (index >= 0x309 && index < 0x309 + BX_PMU_FIXED) ||
         index == 0x345 || (index >= 0x38d && index <= 0x391) || index == 0x1d9;
}

bool BX_CPU_C::perfmon_rdmsr(Bit32u index, Bit64u *val)
{
  perfmon_sync(0);
  perfmon_set_deadline();
  if (index >= 0xc1 && index < 0xc1 + BX_PMU_GP) *val = PM.pmc[index - 0xc1];
  else if (index >= 0x4c1 && index < 0x4c1 + BX_PMU_GP) *val = PM.pmc[index - 0x4c1];
  else if (index >= 0x186 && index < 0x186 + BX_PMU_GP) *val = PM.evtsel[index - 0x186];
  else if (index >= 0x309 && index < 0x309 + BX_PMU_FIXED) *val = PM.fixed[index - 0x309];
  else switch(index) {
    case 0x345: *val = 0x2000; break;       // FW_WRITE: IA32_A_PMCx present, no PEBS, no LBR
    case 0x38d: *val = PM.fixed_ctrl; break;
    case 0x38e: *val = PM.global_status; break;
    case 0x38f: *val = PM.global_ctrl; break;
    case 0x390: case 0x391: *val = 0; break;
    case 0x1d9: *val = PM.debugctl; break;
    default: return false;
  }
  return true;
}

bool BX_CPU_C::perfmon_wrmsr(Bit32u index, Bit64u val)
{
  perfmon_sync(0);      // the WRMSR handler did perfmon_sync(1) already
  if (index >= 0xc1 && index < 0xc1 + BX_PMU_GP) PM.pmc[index - 0xc1] = (Bit64u)(Bit64s)(Bit32s)(Bit32u) val & BX_PMU_WIDTH_MASK;
  else if (index >= 0x4c1 && index < 0x4c1 + BX_PMU_GP) {
    if (val & ~BX_PMU_WIDTH_MASK) return false;
    PM.pmc[index - 0x4c1] = val;
  }
  else if (index >= 0x186 && index < 0x186 + BX_PMU_GP) {
    if (val >> 34) return false;
    PM.evtsel[index - 0x186] = val;
  }
  else if (index >= 0x309 && index < 0x309 + BX_PMU_FIXED) {
    if (val & ~BX_PMU_WIDTH_MASK) return false;
    PM.fixed[index - 0x309] = val;
  }
  else switch(index) {
    case 0x38d:
      if (val & ~((BX_CONST64(1) << (4*BX_PMU_FIXED)) - 1)) return false;
      PM.fixed_ctrl = val; break;
    case 0x38f:
      if (val & ~BX_PMU_GLOBAL_MASK) return false;
      PM.global_ctrl = val; break;
    case 0x390: PM.global_status &= ~val; break;
    case 0x391: PM.global_status |= val & BX_PMU_GLOBAL_MASK; break;
    case 0x1d9: PM.debugctl = val & 0xdfc3; break;
    default: return false;  // 0x345, 0x38e read only
  }
  perfmon_set_deadline();
  return true;
}

bool BX_CPU_C::perfmon_rdpmc(Bit32u ecx, Bit64u *val)
{
  perfmon_sync(0);
  perfmon_set_deadline();
  unsigned n = ecx & 0x3fffffff;
  if (ecx & 0x80000000) return false;
  if (ecx & 0x40000000) {
    if (n >= BX_PMU_FIXED) return false;
    *val = PM.fixed[n];
  }
  else {
    if (n >= BX_PMU_GP) return false;
    *val = PM.pmc[n];
  }
  return true;
}
