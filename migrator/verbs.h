/* SPDX-License-Identifier: MIT */
/*
 * One row per verb; a new one joins the list in main.c, or in live.c if it needs libvirt
 * or the other host, and has a file of its own.
 */
#ifndef GCLK_MIGRATOR_VERBS_H
#define GCLK_MIGRATOR_VERBS_H

#include "migrator/options.h"

extern const struct verb verb_host, verb_inspect, verb_diff, verb_plan, verb_rewrite,
	verb_undo, verb_extract, verb_explain, verb_log, verb_hook;

/* Of the program guestclock-live, which `guestclock` runs for these. */
extern const struct verb verb_proxy, verb_save, verb_restore, verb_migrate, verb_check,
	verb_hosts;

/* Of guestclock-seal. */
extern const struct verb verb_keygen, verb_seal, verb_open;

/* Their lines in the list, which `guestclock` shows without having them. */
#define SUMMARY_KEYGEN	"a key to seal clock states with, or to have them sealed for"
#define SUMMARY_SEAL	"sign a clock state, and encrypt it to one recipient"
#define SUMMARY_OPEN	"prove whose a sealed clock state is, and take it out"
#define SUMMARY_SAVE	"save a running libvirt guest, with what restoring it right needs"
#define SUMMARY_RESTORE "restore a saved libvirt guest with its clocks right"
#define SUMMARY_MIGRATE "move a running libvirt guest to another host, clocks right"
#define SUMMARY_PROXY	"an end of the stream, for migrations that others start"
#define SUMMARY_CHECK	"a running guest: are its clocks right, where can it go"
#define SUMMARY_HOSTS	"which of these hosts can take which guests, and why not"

/* Parses, runs, and sees to it that the answer reached its reader. The exit code. */
int verb_main(const struct verb *verb, int argc, char **argv);

/* The exit code of a program whose answer is written: @status, or a system error. */
int verb_finish(int status);

#endif
