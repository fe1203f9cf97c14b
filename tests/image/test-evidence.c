/* SPDX-License-Identifier: MIT */
/* When the guest stopped, by what a file and the state in it tell. */
#include <string.h>

#include "core/calendar.h"
#include "core/util.h"
#include "gclk-test.h"
#include "image/image.h"

#define MS GCLK_NS_PER_MS
#define S GCLK_NS_PER_S
#define STOP (INT64_C(1795228000) * S + 250 * MS)

/* A guest that ran for a minute, stopped at STOP, and was written within 80 ms. */
struct scene {
	struct gclk_container_info info;
	struct gclk_libvirt_save save;
	struct gclk_qcow2_snapshot snapshot;
	struct gclk_state *state;
	struct gclk_image image;
};

static void put_time(uint8_t *cmos, int64_t seconds)
{
	struct gclk_rtc_format format = { .binary = true, .hours_24 = true,
					  .has_century = true, .window_year = 1970 };
	struct gclk_rtc_registers regs;
	struct gclk_civil civil;

	CU_ASSERT_FATAL(gclk_civil_from_seconds(seconds, &civil) == 0);
	CU_ASSERT_FATAL(gclk_rtc_encode(&civil, &format, &regs, NULL) == 0);
	cmos[0] = regs.second;
	cmos[2] = regs.minute;
	cmos[4] = regs.hour;
	cmos[6] = regs.weekday;
	cmos[7] = regs.day;
	cmos[8] = regs.month;
	cmos[9] = regs.year;
	cmos[0x32] = regs.century;
	cmos[11] = 6;
}

static void scene_begin(struct scene *s, uint8_t run_state)
{
	struct gclk_rtc *rtc;

	memset(s, 0, sizeof(*s));
	s->state = gclk_state_new(1);
	CU_ASSERT_FATAL(s->state != NULL);
	s->info.file = (struct gclk_file_facts){ .regular = true, .has_birth = true,
						 .birth_ns = STOP + 2 * MS,
						 .mtime_ns = STOP + 82 * MS };
	rtc = &s->state->rtc;
	GCLK_SET(rtc, rtc, axis, GCLK_AXIS_REALTIME);
	GCLK_SET(rtc, rtc, base_s, STOP / S - 60);
	GCLK_SET(rtc, rtc, base_at_ns, STOP - 60 * S);
	put_time(rtc->cmos, STOP / S);
	GCLK_SET(guest, &s->state->guest, run_state, run_state);
	GCLK_SET(guest, &s->state->guest, ram_bytes, 1 << 24);
	s->image.info = &s->info;
	s->image.state = s->state;
}

static const struct gclk_evidence *find(struct scene *s, const char *basis)
{
	s->image.n_evidence = 0;
	gclk_image_find_evidence(&s->image);
	for (unsigned i = 0; i < s->image.n_evidence; i++) {
		if (!strcmp(s->image.evidence[i].basis, basis)) {
			return &s->image.evidence[i];
		}
	}
	return NULL;
}

static bool covers(const struct gclk_evidence *e, int64_t ns)
{
	int64_t off = e ? e->at.ns - ns : 0;

	return e && e->at.uncertainty_ns != GCLK_UNBOUNDED &&
	       (uint64_t)(off < 0 ? -off : off) <= e->at.uncertainty_ns;
}

static void scene_end(struct scene *s)
{
	s->state = gclk_state_free(s->state);
}

GCLK_TEST(evidence, a_file_is_born_just_after_the_stop)
{
	struct scene s;

	scene_begin(&s, GCLK_RUN_PAUSED);
	CU_ASSERT(covers(find(&s, "birth-time"), STOP));
	s.info.file.birth_ns = STOP + 350 * MS;		/* a busy host, exec:cat */
	s.info.file.mtime_ns = STOP + 600 * MS;
	CU_ASSERT(covers(find(&s, "birth-time"), STOP));
	s.info.libvirt = &s.save;
	s.save.was_running = 1;
	s.info.file.birth_ns = STOP;
	CU_ASSERT(covers(find(&s, "birth-time"), STOP));
	s.info.file.birth_ns = STOP + 190 * MS;
	CU_ASSERT(covers(find(&s, "birth-time"), STOP));
	/* what libvirt did not stop itself may stand for long: not after, and no more */
	s.save.was_running = 0;
	CU_ASSERT(!covers(find(&s, "birth-time"), STOP));
	CU_ASSERT_FATAL(find(&s, "birth-time") != NULL);
	GCLK_EQ(find(&s, "birth-time")->at.ns, s.info.file.birth_ns);
	scene_end(&s);
}

GCLK_TEST(evidence, a_copy_has_a_birth_of_its_own)
{
	struct scene s;

	scene_begin(&s, GCLK_RUN_PAUSED);
	s.info.file.birth_ns = STOP + 900 * MS;		/* in the next second of the RTC */
	s.info.file.mtime_ns = STOP + 950 * MS;
	CU_ASSERT(find(&s, "birth-time") != NULL);
	s.info.file.birth_ns = STOP + 1100 * MS;
	s.info.file.mtime_ns = STOP + 1150 * MS;
	CU_ASSERT(find(&s, "birth-time") == NULL);
	/* cp -p, at once */
	s.info.file.birth_ns = STOP + 200 * MS;
	s.info.file.mtime_ns = STOP + 82 * MS;
	CU_ASSERT(find(&s, "birth-time") == NULL);
	/* the RTC's second stays an upper limit */
	CU_ASSERT_FATAL(find(&s, "rtc-second") != NULL);
	CU_ASSERT(find(&s, "rtc-second")->at.uncertainty_ns == GCLK_UNBOUNDED);
	scene_end(&s);
}

GCLK_TEST(evidence, a_file_written_over_keeps_an_old_birth)
{
	struct scene s;

	scene_begin(&s, GCLK_RUN_PAUSED);
	s.info.file.birth_ns = STOP - 61 * S;		/* before the guest's RTC began */
	CU_ASSERT(find(&s, "birth-time") == NULL);
	s.info.file.birth_ns = STOP - 30 * S;		/* too long ago for 16 MiB */
	CU_ASSERT(find(&s, "birth-time") == NULL);
	GCLK_SET(guest, &s.state->guest, ram_bytes, UINT64_C(1) << 34);
	CU_ASSERT(find(&s, "birth-time") != NULL);	/* 16 GiB may take that long */
	GCLK_SET(guest, &s.state->guest, ram_bytes, UINT64_MAX);
	CU_ASSERT(find(&s, "birth-time") != NULL);
	scene_end(&s);
}

GCLK_TEST(evidence, a_live_migration_stops_the_guest_while_it_writes)
{
	struct scene s;

	scene_begin(&s, GCLK_RUN_RUNNING);
	s.info.file.birth_ns = STOP - 500 * MS;
	s.info.file.mtime_ns = STOP - 2 * MS;	/* the file system's clock stood at its last tick */
	CU_ASSERT(covers(find(&s, "live-window"), STOP));
	CU_ASSERT(covers(find(&s, "live-window"), STOP - 500 * MS));
	CU_ASSERT(find(&s, "birth-time") == NULL);
	scene_end(&s);
}

GCLK_TEST(evidence, a_snapshot_is_dated_as_the_guest_stops)
{
	struct scene s;

	scene_begin(&s, GCLK_RUN_RUNNING);
	s.info.snapshot = &s.snapshot;
	s.snapshot.date_ns = STOP - 31 * MS;
	CU_ASSERT(covers(find(&s, "snapshot-date"), STOP));
	s.snapshot.date_ns = STOP + 6 * MS;
	CU_ASSERT(covers(find(&s, "snapshot-date"), STOP));
	CU_ASSERT(find(&s, "birth-time") == NULL);
	scene_end(&s);
}

/* What the save said counts for its own image, not for one made later of the same domain. */
GCLK_TEST(evidence, metadata_is_tied_to_its_image)
{
	uint8_t bytes[4] = { 1, 2, 3, 4 };
	struct gclk_tail tail = { .bytes = bytes, .size = sizeof(bytes) };
	const struct gclk_evidence *found;
	struct gclk_domain *d;
	struct scene s;

	scene_begin(&s, GCLK_RUN_PAUSED);
	s.image.tail = &tail;
	s.image.has_domain = true;
	d = &s.image.domain;
	d->n_metadata = 3;
	strcpy(d->metadata[0].name, GCLK_CAPTURED_AT);
	snprintf(d->metadata[0].value, 32, "%lld", (long long)STOP);
	strcpy(d->metadata[1].name, GCLK_CAPTURED_UNCERTAINTY);
	strcpy(d->metadata[1].value, "2000000");
	strcpy(d->metadata[2].name, GCLK_CAPTURED_DIGEST);
	snprintf(d->metadata[2].value, 32, "%016llx",
		 (unsigned long long)gclk_image_digest(&s.image));
	found = find(&s, "metadata");
	CU_ASSERT_FATAL(found != NULL);
	CU_ASSERT(found == &s.image.evidence[0]);
	CU_ASSERT(found->at.ns == STOP && found->at.uncertainty_ns == 2000000);
	bytes[3] = 5;
	CU_ASSERT(find(&s, "metadata") == NULL);
	bytes[3] = 4;
	strcpy(d->metadata[0].value, "soon");
	CU_ASSERT(find(&s, "metadata") == NULL);
	scene_end(&s);
}
