/* SPDX-License-Identifier: MIT */
/* Field tables and schema, held together; and numbers that may never change. */
#include <string.h>

#include <guestclock/bundle.h>

#include "bundle/bind.h"
#include "bundle/bundle.h"
#include "core/util.h"
#include "gclk-test.h"

#define STATE (&guestclock__v1__clock_state__descriptor)
#define BUNDLE (&guestclock__v1__bundle__descriptor)

/* Fields of ClockState that are no part of struct gclk_state's records. */
static const char *const state_only[] = {
	"incompatible", "n_vcpus", "timers_left_out",
	/* places for what nothing fills yet */
	"kvm_vm", "kvm_vcpu", "hyperv_vm", "hyperv_vcpu", "xen_vm", "xen_vcpu", "vmclock",
	"read_back",
};

static const ProtobufCFieldDescriptor *find(const ProtobufCMessageDescriptor *message,
					    const char *name)
{
	return protobuf_c_message_descriptor_get_field_by_name(message, name);
}

/* The type that a row must have in the schema. */
static ProtobufCType wanted_type(const struct gclk_field *row)
{
	if (row->unit == GCLK_UNIT_BOOL) {
		return PROTOBUF_C_TYPE_BOOL;
	}
	if (row->unit == GCLK_UNIT_ENUM) {
		return PROTOBUF_C_TYPE_ENUM;
	}
	switch (row->type) {
	case GCLK_TYPE_STRING:
		return PROTOBUF_C_TYPE_STRING;
	case GCLK_TYPE_BYTES:
		return PROTOBUF_C_TYPE_BYTES;
	case GCLK_TYPE_u64:
		return PROTOBUF_C_TYPE_UINT64;
	case GCLK_TYPE_i64:
		return PROTOBUF_C_TYPE_SINT64;
	case GCLK_TYPE_i32:
		return PROTOBUF_C_TYPE_SINT32;
	default:
		return PROTOBUF_C_TYPE_UINT32;
	}
}

/* "tcg_icount" in the table is ACCELERATOR_TCG_ICOUNT in the schema. */
static bool same_name(const char *row, const char *schema)
{
	size_t n = strlen(row), m = strlen(schema);

	if (m <= n || schema[m - n - 1] != '_') {
		return false;
	}
	for (size_t i = 0; i < n; i++) {
		char c = row[i] == '-' ? '_' : row[i];

		c = c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
		if (c != schema[m - n + i]) {
			return false;
		}
	}
	return true;
}

static void check_enum(const struct gclk_field *row, const ProtobufCEnumDescriptor *schema)
{
	unsigned n = 0;

	for (; row->names[n].name; n++) {
		const ProtobufCEnumValue *value =
			protobuf_c_enum_descriptor_get_value(schema, (int)row->names[n].value);

		if (!value || !same_name(row->names[n].name, value->name)) {
			printf("\n    %s: \"%s\" is not in the schema\n", row->name,
			       row->names[n].name);
			CU_FAIL("names differ");
		}
	}
	GCLK_EQ(schema->n_values, n);
}

static bool has_row(const struct gclk_record *record, const char *name)
{
	for (unsigned i = 0; i < record->n_subs; i++) {
		if (!strcmp(record->subs[i].name, name)) {
			return true;
		}
	}
	return gclk_record_find(record, name) >= 0;
}

static void complain(const struct gclk_record *record, const char *name, const char *what)
{
	printf("\n    %s.%s: %s\n", record->name, name, what);
	CU_FAIL("field table and schema differ");
}

static void check_row(const struct gclk_record *record, const struct gclk_field *row,
		      const ProtobufCMessageDescriptor *message)
{
	const ProtobufCFieldDescriptor *field = find(message, row->name);

	if (gclk_field_is_count(record, row)) {
		if (field) {
			complain(record, row->name, "a count is the length of its list");
		}
		return;
	}
	if (!field) {
		complain(record, row->name, "is not in the schema");
		return;
	}
	if (field->label != PROTOBUF_C_LABEL_OPTIONAL || field->type != wanted_type(row)) {
		complain(record, row->name, "has another type in the schema");
	} else if (field->type == PROTOBUF_C_TYPE_ENUM) {
		check_enum(row, field->descriptor);
	}
}

static void check_record(const struct gclk_record *record,
			 const ProtobufCMessageDescriptor *message)
{
	struct gclk_binding binding;

	CU_ASSERT(gclk_bind(&binding, record, message));
	for (unsigned i = 0; i < record->n_fields; i++) {
		check_row(record, &record->fields[i], message);
	}
	for (unsigned i = 0; i < record->n_subs; i++) {
		const ProtobufCFieldDescriptor *field = find(message, record->subs[i].name);

		if (!field || field->type != PROTOBUF_C_TYPE_MESSAGE ||
		    field->label != PROTOBUF_C_LABEL_REPEATED) {
			complain(record, record->subs[i].name, "is no list in the schema");
			continue;
		}
		check_record(record->subs[i].record, field->descriptor);
	}
	for (unsigned i = 0; i < message->n_fields; i++) {
		if (!has_row(record, message->fields[i].name)) {
			complain(record, message->fields[i].name, "has no row");
		}
	}
}

GCLK_TEST(schema, records_and_messages_have_the_same_fields)
{
	for (unsigned i = 0; i < gclk_n_parts; i++) {
		const struct gclk_part *part = &gclk_parts[i];
		const ProtobufCFieldDescriptor *field = find(STATE, part->name);

		if (!field) {
			complain(part->record, part->name, "the part is not in the schema");
			continue;
		}
		GCLK_EQ(field->type, PROTOBUF_C_TYPE_MESSAGE);
		GCLK_EQ(field->label, part->is_array ? PROTOBUF_C_LABEL_REPEATED
						     : PROTOBUF_C_LABEL_OPTIONAL);
		check_record(part->record, field->descriptor);
	}
	check_record(&gclk_host_record, find(BUNDLE, "host")->descriptor);
	check_record(&gclk_provenance_record, find(BUNDLE, "provenance")->descriptor);
	check_record(&gclk_rewrite_record, find(BUNDLE, "rewrite")->descriptor);
}

GCLK_TEST(schema, a_state_has_its_parts_and_what_is_listed_here)
{
	GCLK_EQ(STATE->n_fields, gclk_n_parts + GCLK_COUNT(state_only));
	for (unsigned i = 0; i < GCLK_COUNT(state_only); i++) {
		CU_ASSERT(find(STATE, state_only[i]) != NULL);
	}
}

/* What makes gclk_state_pack() write the bytes that the whole message would give. */
GCLK_TEST(schema, parts_are_numbered_in_their_order)
{
	uint32_t last = find(STATE, "timers_left_out")->id;

	CU_ASSERT(find(STATE, "incompatible")->id < last);
	CU_ASSERT(find(STATE, "n_vcpus")->id < last);
	for (unsigned i = 0; i < gclk_n_parts; i++) {
		uint32_t id = find(STATE, gclk_parts[i].name)->id;

		CU_ASSERT(id > last);
		last = id;
	}
	CU_ASSERT(find(BUNDLE, "format_version")->id < find(BUNDLE, "state")->id);
}

static void check_tree(const ProtobufCMessageDescriptor *message, unsigned *count)
{
	CU_ASSERT(!strcmp(message->package_name, "guestclock.v1"));
	for (unsigned i = 0; i < message->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &message->fields[i];

		++*count;
		CU_ASSERT(field->label != PROTOBUF_C_LABEL_REQUIRED);
		CU_ASSERT(field->label != PROTOBUF_C_LABEL_NONE);
		CU_ASSERT(field->default_value == NULL);
		if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
			check_tree(field->descriptor, count);
		}
	}
}

GCLK_TEST(schema, every_scalar_has_presence)
{
	unsigned count = 0;

	check_tree(BUNDLE, &count);
	CU_ASSERT(count > 300);
}

static void check_names(const char *const *names, unsigned n,
			const ProtobufCEnumDescriptor *schema)
{
	GCLK_EQ(schema->n_values, n);
	for (unsigned i = 0; i < n; i++) {
		const ProtobufCEnumValue *value =
			protobuf_c_enum_descriptor_get_value(schema, (int)i);

		CU_ASSERT(value && same_name(names[i], value->name));
	}
}

GCLK_TEST(schema, names_of_the_plan_are_the_same)
{
	check_names(gclk_gap_policy_names, GCLK_N_GAP_POLICIES,
		    &guestclock__v1__gap_policy__descriptor);
	check_names(gclk_tick_policy_names, GCLK_N_TICK_POLICIES,
		    &guestclock__v1__tick_policy__descriptor);
	check_names(gclk_severity_names, GCLK_N_SEVERITIES,
		    &guestclock__v1__severity__descriptor);
}

static const ProtobufCMessageDescriptor *message_named(const ProtobufCMessageDescriptor *root,
						       const char *name)
{
	const ProtobufCMessageDescriptor *found = NULL;

	if (!strcmp(root->short_name, name)) {
		return root;
	}
	for (unsigned i = 0; !found && i < root->n_fields; i++) {
		if (root->fields[i].type == PROTOBUF_C_TYPE_MESSAGE) {
			found = message_named(root->fields[i].descriptor, name);
		}
	}
	return found;
}

/* Each line of the file: message, field, number, protobuf-c's type and label. */
GCLK_TEST(schema, wire_numbers_are_as_released)
{
	FILE *file = fopen(GCLK_TEST_DATA "/wire-numbers-v1.txt", "r");
	char message[64], name[64];
	unsigned id, type, label, n = 0;

	CU_ASSERT_FATAL(file != NULL);
	while (fscanf(file, "%63s %63s %u %u %u", message, name, &id, &type, &label) == 5) {
		const ProtobufCMessageDescriptor *m = message_named(BUNDLE, message);
		const ProtobufCFieldDescriptor *f = m ? find(m, name) : NULL;

		if (!f || f->id != id || f->type != type || f->label != label) {
			printf("\n    %s.%s is no longer number %u of its type\n", message, name,
			       id);
			CU_FAIL("the wire format changed");
		}
		n++;
	}
	CU_ASSERT(feof(file));
	CU_ASSERT(n > 300);
	fclose(file);
}
