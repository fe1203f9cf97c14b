/* SPDX-License-Identifier: MIT */
/* Everything in libguestclock. <guestclock/image.h> belongs to libguestclock-image. */
#ifndef GUESTCLOCK_H
#define GUESTCLOCK_H

#include <guestclock/bundle.h>
#include <guestclock/devices.h>
#include <guestclock/error.h>
#include <guestclock/exchange.h>
#include <guestclock/kvm.h>
#include <guestclock/plan.h>
#include <guestclock/record.h>
#include <guestclock/state.h>

#endif
