/* SPDX-License-Identifier: MIT */
/*
 * The destination end on the standard input and output of this process, as ssh starts it:
 * one process per connection. The first one, control, opens a socket that the others,
 * channels, find by the session's number, and carries the session.
 */
#ifndef GCLK_MIGRATOR_PEER_STDIO_END_H
#define GCLK_MIGRATOR_PEER_STDIO_END_H

#include "migrator/peer/destination_end.h"

/* Returns when the connection has ended; the session, if it was control. */
int stdio_end_run(const struct destination_options *options, int in, int out,
		  struct gclk_error *reterr);

/*
 * A destination end inside this process, for a source end whose address becomes
 * @ret_address. For a filter in a path, without another host.
 */
struct inner_end;
int inner_end_open(const struct destination_options *options, struct inner_end **ret,
		   char ret_address[128], struct gclk_error *reterr);
struct inner_end *inner_end_close(struct inner_end *inner);

#endif
