/////////////////////////////////////////////////////////////////////////
// Architectural PMU model (spike): instruction/cycle counters with PMI.
/////////////////////////////////////////////////////////////////////////
#ifndef BX_PERFMON_H
#define BX_PERFMON_H

#include "lockstep.h"

#define BX_PMU_GP    4
#define BX_PMU_FIXED 3
const Bit64u BX_PMU_WIDTH_MASK = BX_CONST64(0x0000FFFFFFFFFFFF);  // 48 bit counters
const Bit64u BX_PMU_NEVER      = BX_CONST64(0xFFFFFFFFFFFFFFFF);
const Bit64u BX_PMU_GLOBAL_MASK = ((BX_CONST64(1) << BX_PMU_GP) - 1) | (((BX_CONST64(1) << BX_PMU_FIXED) - 1) << 32);

struct bx_perfmon_t {
  Bit64u pmc[BX_PMU_GP], evtsel[BX_PMU_GP];
  Bit64u fixed[BX_PMU_FIXED];
  Bit64u fixed_ctrl, global_ctrl, global_status, debugctl;

  Bit64u excess;        // icount increments which did not retire an instruction
  Bit64u last_retired;  // retired count up to which the counters are up to date
  Bit64u last_icount;   // same for the cycle counters (cycle == icount here)
  Bit64u deadline;      // when icount reaches this, cpu_loop must call perfmon_boundary
  Bit64u pmi_due;       // retired count at which the pending PMI is delivered
};
#endif
