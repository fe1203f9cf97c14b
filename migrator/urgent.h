/* SPDX-License-Identifier: MIT */
#ifndef GCLK_MIGRATOR_URGENT_H
#define GCLK_MIGRATOR_URGENT_H

#include <stdbool.h>

/*
 * The calling thread goes before others (SCHED_RR), where it may, and wakes without slack; or
 * as all do again. For what sleeps nearly all of the time and must not wake late: for an
 * instant at which a guest is to run, or beside a reader who does not wait.
 */
void urgent(bool yes);

#endif
