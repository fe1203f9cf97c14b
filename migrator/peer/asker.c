/* SPDX-License-Identifier: MIT */
#include "core/error.h"
#include "core/util.h"
#include "migrator/peer/asker.h"

/*
 * The kernel slews a clock by at most 500 ppm, which is what a clock may do that is being
 * set by hand or has just been synchronised. One that is in step with a server has been
 * steered to a few ppm; 100 ppm hold for it while the server's correction lasts.
 */
#define ANY_PPB 500000
#define STEERED_PPB 100000

static uint64_t rate_ppb(const struct gclk_host *host)
{
	return host->flags & GCLK_HOST_SYNCHRONISED ? STEERED_PPB : ANY_PPB;
}

uint64_t asker_drift_ppb(const struct gclk_host *a, const struct gclk_host *b)
{
	return rate_ppb(a) + rate_ppb(b);
}

void asker_init(struct asker *asker, uint64_t drift_ppb)
{
	*asker = (struct asker){ .due_ns = clock_mono_ns() };
	gclk_exchanges_init(&asker->exchanges, drift_ppb, ASKER_RESOLUTION_NS);
	asker_burst(asker);
}

void asker_burst(struct asker *asker)
{
	asker->burst = ASKER_BURST;
	asker->due_ns = clock_mono_ns();
}

int64_t asker_next_ns(const struct asker *asker)
{
	return asker->waiting ? asker->asked_mono_ns + ASKER_SILENCE_NS : asker->due_ns;
}

int asker_ask(struct asker *asker, struct port *port, struct gclk_error *reterr)
{
	struct wire_message ask = { .type = WIRE_ASK };
	int64_t now = clock_mono_ns();

	if (asker->waiting) {
		return now - asker->asked_mono_ns < ASKER_SILENCE_NS
			       ? 0
			       : gclk_fail(reterr, GCLK_PEER, port->link.name,
					   GCLK_NO_OFFSET,
					   "the other end has not answered for %d s",
					   (int)(ASKER_SILENCE_NS / GCLK_NS_PER_S));
	}
	if (now < asker->due_ns) {
		return 0;
	}
	ask.ask.number = ++asker->number;
	asker->waiting = true;
	asker->asked_mono_ns = now;
	(void)port_wall_was_set(port);
	return port_send(port, &ask, &asker->asked_ns, reterr);
}

int asker_take(struct asker *asker, const struct port *port,
	       const struct wire_message *answer, struct gclk_error *reterr)
{
	struct gclk_exchange x = { asker->asked_ns, answer->answer.heard_ns,
				   answer->answer.answered_ns, port->heard_ns };
	int64_t now = clock_mono_ns();
	int r;

	if (!asker->waiting || answer->answer.number != asker->number) {
		return gclk_fail(reterr, GCLK_PEER, port->link.name, GCLK_NO_OFFSET,
				 "an answer to a question that was not asked");
	}
	asker->waiting = false;
	asker->burst -= asker->burst != 0;
	asker->due_ns = asker->burst ? now : now + ASKER_PAUSE_NS;
	r = gclk_exchanges_add(&asker->exchanges, &x, reterr);
	/* this host's own clock may have been set back meanwhile: that answer is lost, no more */
	return r == -GCLK_PEER && x.answered_ns < x.heard_ns ? r : 0;
}

int asker_answer(struct port *port, const struct wire_message *ask,
		 struct gclk_error *reterr)
{
	struct wire_message answer = { .type = WIRE_ANSWER };

	(void)port_wall_was_set(port);
	answer.answer.number = ask->ask.number;
	answer.answer.heard_ns = port->heard_ns;
	answer.answer.answered_ns = port_wall_ns(port);
	return port_send(port, &answer, NULL, reterr);
}
