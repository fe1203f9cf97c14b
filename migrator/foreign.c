/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/util.h"
#include "migrator/foreign.h"
#include "migrator/json-state.h"

/* ---- as it is said ---- */

/* Before a state as bytes (gclk_state_flatten()), or nothing. */
struct said_bundle {
	uint32_t has_state, zero;
	struct gclk_provenance provenance;
	struct gclk_host host;
	struct gclk_rewrite rewrite;
};

/* Where our table of findings lies is nobody's business: their ids stand in its place. */
struct said_move {
	struct move move;
	char ids[GCLK_FINDINGS_MAX][40];
};

/* ---- reading, wherever that is ---- */

static int take_parts(const struct gclk_bundle *bundle, struct foreign_bundle *ret,
		      struct gclk_error *reterr)
{
	int r = gclk_bundle_provenance(bundle, &ret->provenance, reterr);

	if (r >= 0) {
		r = gclk_bundle_host(bundle, &ret->host, reterr);
	}
	if (r >= 0) {
		r = gclk_bundle_rewrite(bundle, &ret->rewrite, reterr);
	}
	return r < 0 ? r : 0;
}

static int take_state(const struct gclk_bundle *bundle, struct foreign_bundle *ret,
		      struct gclk_error *reterr)
{
	uint32_t n_vcpus = gclk_bundle_n_vcpus(bundle);

	if (!n_vcpus) {
		return 0;
	}
	ret->state = gclk_state_new(n_vcpus);
	if (!ret->state) {
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET,
				 "no memory for a state of %" PRIu32 " vCPUs", n_vcpus);
	}
	return gclk_bundle_state(bundle, ret->state, reterr);
}

static int read_bundle(bool is_json, const void *bytes, size_t n, struct foreign_bundle *ret,
		       struct gclk_error *reterr)
{
	struct gclk_bundle *bundle = NULL;
	int r = is_json ? bundle_from_json(bytes, n, &bundle, reterr) :
			  gclk_bundle_unpack(bytes, n, &bundle, reterr);

	memset(ret, 0, sizeof(*ret));
	r = r < 0 ? r : take_state(bundle, ret, reterr);
	r = r < 0 ? r : take_parts(bundle, ret, reterr);
	gclk_bundle_free(bundle);
	if (r < 0) {
		foreign_bundle_clear(ret);
	}
	return r;
}

static int check_bundle(const void *bytes, size_t n, struct gclk_error *reterr)
{
	struct gclk_bundle *bundle;
	int r = gclk_bundle_unpack(bytes, n, &bundle, reterr);

	if (r == 0) {
		gclk_bundle_free(bundle);
	}
	return r;
}

void foreign_bundle_clear(struct foreign_bundle *bundle)
{
	gclk_state_free(bundle->state);
	memset(bundle, 0, sizeof(*bundle));
}

/* ---- in the worker ---- */

static int no_memory(struct gclk_error *reterr)
{
	return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
}

static int say_bundle(bool is_json, const void *bytes, size_t n, void **ret, size_t *ret_n,
		      struct gclk_error *reterr)
{
	struct foreign_bundle bundle;
	struct said_bundle *said;
	int r = read_bundle(is_json, bytes, n, &bundle, reterr);

	if (r < 0) {
		return r;
	}
	*ret_n = sizeof(*said) + (bundle.state ? gclk_state_flat_bytes(bundle.state) : 0);
	said = calloc(1, *ret_n);
	if (said) {
		said->has_state = bundle.state != NULL;
		said->provenance = bundle.provenance;
		said->host = bundle.host;
		said->rewrite = bundle.rewrite;
		if (bundle.state) {
			gclk_state_flatten(bundle.state, said + 1);
		}
	}
	foreign_bundle_clear(&bundle);
	*ret = said;
	return said ? 0 : no_memory(reterr);
}

static int say_host(const char *text, size_t n, void **ret, size_t *ret_n,
		    struct gclk_error *reterr)
{
	struct gclk_host *said = calloc(1, sizeof(*said));
	int r = said ? host_from_json(text, n, said, reterr) : no_memory(reterr);

	if (r < 0) {
		free(said);
		return r;
	}
	*ret = said;
	*ret_n = sizeof(*said);
	return 0;
}

static int say_move(const char *text, size_t n, void **ret, size_t *ret_n,
		    struct gclk_error *reterr)
{
	struct said_move *said = calloc(1, sizeof(*said));
	int r = said ? move_from_json(text, n, &said->move, reterr) : no_memory(reterr);

	if (r < 0) {
		free(said);
		return r;
	}
	for (unsigned i = 0; i < said->move.findings.n; i++) {
		struct gclk_finding *finding = &said->move.findings.items[i];

		strncpy(said->ids[i], finding->info->id, sizeof(said->ids[i]) - 1);
		finding->info = NULL;
	}
	*ret = said;
	*ret_n = sizeof(*said);
	return 0;
}

int foreign_read(uint32_t what, const void *bytes, size_t n, void **ret, size_t *ret_n,
		 struct gclk_error *reterr)
{
	switch (what) {
	case FOREIGN_BUNDLE:
	case FOREIGN_BUNDLE_JSON:
		return say_bundle(what == FOREIGN_BUNDLE_JSON, bytes, n, ret, ret_n, reterr);
	case FOREIGN_WHOLE_BUNDLE:
		return check_bundle(bytes, n, reterr);
	case FOREIGN_HOST_JSON:
		return say_host(bytes, n, ret, ret_n, reterr);
	case FOREIGN_MOVE_JSON:
		return say_move(bytes, n, ret, ret_n, reterr);
	default:
		return gclk_fail(reterr, GCLK_UNSUPPORTED, NULL, GCLK_NO_OFFSET,
				 "there is no reader %" PRIu32, what);
	}
}

/* ---- what is believed ---- */

int foreign_refuse(const char *what, struct gclk_error *reterr)
{
	return gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
			 "the confined process that reads it answers what cannot be: %s", what);
}

static int take_records(const struct said_bundle *said, struct foreign_bundle *ret,
			struct gclk_error *reterr)
{
	ret->provenance = said->provenance;
	ret->host = said->host;
	ret->rewrite = said->rewrite;
	if (gclk_record_settle(&gclk_provenance_record, &ret->provenance, "", NULL) < 0 ||
	    gclk_record_settle(&gclk_host_record, &ret->host, "", NULL) < 0 ||
	    gclk_record_settle(&gclk_rewrite_record, &ret->rewrite, "", NULL) < 0) {
		return foreign_refuse("a record that is not valid", reterr);
	}
	return 0;
}

int foreign_take_bundle(const void *said, size_t n, struct foreign_bundle *ret,
			struct gclk_error *reterr)
{
	struct said_bundle head;
	size_t used = 0;
	int r;

	memset(ret, 0, sizeof(*ret));
	if (n < sizeof(head)) {
		return foreign_refuse("a bundle's length", reterr);
	}
	memcpy(&head, said, sizeof(head));
	if (head.has_state) {
		r = gclk_state_unflatten((const char *)said + sizeof(head), n - sizeof(head),
					 &used, &ret->state, NULL);
		if (r < 0) {
			return r == -GCLK_NOMEM ? no_memory(reterr) :
						  foreign_refuse("a state", reterr);
		}
	}
	r = used == n - sizeof(head) ? take_records(&head, ret, reterr) :
				       foreign_refuse("a bundle's length", reterr);
	if (r < 0) {
		foreign_bundle_clear(ret);
	}
	return r;
}

int foreign_take_host(const void *said, size_t n, struct gclk_host *ret,
		      struct gclk_error *reterr)
{
	struct gclk_host host;

	if (n != sizeof(host)) {
		return foreign_refuse("a host's length", reterr);
	}
	memcpy(&host, said, n);
	if (gclk_record_settle(&gclk_host_record, &host, "", NULL) < 0) {
		return foreign_refuse("a host that is not valid", reterr);
	}
	*ret = host;
	return 0;
}

static bool take_findings(struct said_move *said)
{
	struct gclk_findings *findings = &said->move.findings;

	if (findings->n > GCLK_FINDINGS_MAX) {
		return false;
	}
	for (unsigned i = 0; i < GCLK_FINDINGS_MAX; i++) {
		char *id = said->ids[i];

		id[sizeof(said->ids[i]) - 1] = 0;
		findings->items[i].info = i < findings->n ? gclk_finding_by_id(id) : NULL;
		if (i < findings->n && !findings->items[i].info) {
			return false;
		}
	}
	return true;
}

int foreign_take_move(const void *bytes, size_t n, struct move *ret, struct gclk_error *reterr)
{
	struct said_move *said;
	int r;

	if (n != sizeof(*said)) {
		return foreign_refuse("a report's length", reterr);
	}
	said = malloc(sizeof(*said));
	if (!said) {
		return no_memory(reterr);
	}
	memcpy(said, bytes, n);
	r = take_findings(said) && move_settle(&said->move) ? 0 :
							      foreign_refuse("a report", reterr);
	if (r == 0) {
		*ret = said->move;
	}
	free(said);
	return r;
}

/* ---- asking ---- */

int foreign_ask(const struct gclk_worker *by, uint32_t what, const void *bytes, size_t n,
		void **ret, size_t *ret_n, struct gclk_error *reterr)
{
	struct gclk_reading *reading;
	int r = gclk_reading_new(by, &reading, reterr);

	if (r == 0) {
		r = gclk_reading_ask(reading, what, bytes, n, ret, ret_n, reterr);
		gclk_reading_free(reading);
	}
	return r;
}

static int ask_bundle(const struct gclk_worker *by, bool is_json, const void *bytes, size_t n,
		      struct foreign_bundle *ret, struct gclk_error *reterr)
{
	void *said = NULL;
	size_t n_said = 0;
	int r;

	if (!by) {
		return read_bundle(is_json, bytes, n, ret, reterr);
	}
	r = foreign_ask(by, is_json ? FOREIGN_BUNDLE_JSON : FOREIGN_BUNDLE, bytes, n, &said,
			&n_said, reterr);
	r = r < 0 ? r : foreign_take_bundle(said, n_said, ret, reterr);
	free(said);
	return r;
}

int foreign_bundle(const struct gclk_worker *by, const void *bytes, size_t n,
		   struct foreign_bundle *ret, struct gclk_error *reterr)
{
	return ask_bundle(by, false, bytes, n, ret, reterr);
}

int foreign_bundle_json(const struct gclk_worker *by, const char *text, size_t n,
			struct foreign_bundle *ret, struct gclk_error *reterr)
{
	return ask_bundle(by, true, text, n, ret, reterr);
}

int foreign_check_bundle(const struct gclk_worker *by, const void *bytes, size_t n,
			 struct gclk_error *reterr)
{
	void *said = NULL;
	size_t n_said;
	int r = by ? foreign_ask(by, FOREIGN_WHOLE_BUNDLE, bytes, n, &said, &n_said, reterr) :
		     check_bundle(bytes, n, reterr);

	free(said);
	return r;
}

int foreign_host_json(const struct gclk_worker *by, const char *text, size_t n,
		      struct gclk_host *ret, struct gclk_error *reterr)
{
	void *said = NULL;
	size_t n_said = 0;
	int r;

	if (!by) {
		return host_from_json(text, n, ret, reterr);
	}
	r = foreign_ask(by, FOREIGN_HOST_JSON, text, n, &said, &n_said, reterr);
	r = r < 0 ? r : foreign_take_host(said, n_said, ret, reterr);
	free(said);
	return r;
}

int foreign_move_by(struct gclk_reading *reading, const char *text, size_t n,
		    struct move *ret, struct gclk_error *reterr)
{
	void *said = NULL;
	size_t n_said = 0;
	int r;

	if (!reading) {
		return move_from_json(text, n, ret, reterr);
	}
	r = gclk_reading_ask(reading, FOREIGN_MOVE_JSON, text, n, &said, &n_said, reterr);
	r = r < 0 ? r : foreign_take_move(said, n_said, ret, reterr);
	free(said);
	return r;
}

int foreign_move(const struct gclk_worker *by, const char *text, size_t n, struct move *ret,
		 struct gclk_error *reterr)
{
	struct gclk_reading *reading = NULL;
	int r = by ? gclk_reading_new(by, &reading, reterr) : 0;

	if (r == 0) {
		r = foreign_move_by(reading, text, n, ret, reterr);
		gclk_reading_free(reading);
	}
	return r;
}
