/* SPDX-License-Identifier: MIT */
/*
 * A live stream through the filter, at once, in pieces, and in pieces of which what is
 * granted goes by unseen: all give the same bytes, and without a plan they are the input's own.
 */
#include <string.h>

#include "fuzz.h"
#include "image/image.h"

enum way { WHOLE, PIECES, GRANTED };

struct outcome {
	uint8_t *bytes;
	size_t n;
	int had_state, status;
	unsigned n_findings;
};

static void append(struct outcome *o, const uint8_t *p, size_t n)
{
	if (n) {
		memcpy(o->bytes + o->n, p, n);
		o->n += n;
	}
}

/* What goes without being shown to the filter. */
static size_t by_grant(struct gclk_filter *f, const uint8_t *data, size_t n)
{
	struct gclk_grant grant;
	size_t went;

	gclk_filter_grant(f, &grant);
	went = gclk_grant_use(&grant, data, n);
	FUZZ_CHECK(went <= n);
	if (went) {
		gclk_filter_went(f, went, grant.rest);
	}
	return went;
}

static struct outcome run(const uint8_t *data, size_t size, uint64_t choice, enum way way)
{
	struct gclk_filter_options options = { .one_way = choice & 1,
					       .want_page_clock = choice >> 1 & 1,
					       .unreadable = choice >> 2 & 1 };
	struct outcome o = { .bytes = malloc(size + 1), .status = GCLK_FILTER_MORE };
	struct gclk_filter *f = NULL;
	struct gclk_error error = { 0 };
	size_t pass, held, n;

	FUZZ_CHECK(o.bytes && gclk_filter_new(&options, &f, &error) == 0);
	while (size && o.status >= 0) {
		n = way ? 1 + fuzz_next(&choice) % (fuzz_next(&choice) & 1 ? 9 : 9000) : size;
		n = n < size ? n : size;
		if (way == GRANTED && (pass = by_grant(f, data, n)) > 0) {
			append(&o, data, pass);
			data += pass;
			size -= pass;
			continue;
		}
		o.status = gclk_filter_push(f, data, n, &pass, &held, &error);
		if (o.status < 0) {
			FUZZ_CHECK(error.status == -o.status && error.message[0]);
			break;
		}
		FUZZ_CHECK(pass + held <= n && (o.status == GCLK_FILTER_READY || pass + held == n));
		append(&o, data, pass);
		if (o.status == GCLK_FILTER_READY) {
			const uint8_t *bytes;

			o.had_state = gclk_filter_state(f) != NULL;
			FUZZ_CHECK(gclk_filter_apply(f, NULL, &bytes, &n, &error) == 0);
			FUZZ_CHECK(o.n + n <= o.n + pass + held + (size_t)gclk_filter_offset(f));
			append(&o, bytes, n);
		}
		data += pass + held;
		size -= pass + held;
	}
	o.n_findings = gclk_filter_findings(f)->n;
	gclk_filter_free(f);
	return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t choice = fuzz_hash(data, size);
	struct outcome whole = run(data, size, choice, WHOLE);

	FUZZ_CHECK(whole.status < 0 || !memcmp(whole.bytes, data, whole.n));
	for (int way = PIECES; way <= GRANTED; way++) {
		struct outcome cut = run(data, size, choice, (enum way)way);

		FUZZ_CHECK(!memcmp(cut.bytes, data, cut.n));
		/* the same verdict, however it was cut; a refusal comes before more has gone out */
		FUZZ_CHECK((whole.status < 0) == (cut.status < 0));
		FUZZ_CHECK(whole.status < 0 || whole.n == cut.n);
		FUZZ_CHECK(whole.had_state == cut.had_state && whole.n_findings == cut.n_findings);
		free(cut.bytes);
	}
	free(whole.bytes);
	return 0;
}
