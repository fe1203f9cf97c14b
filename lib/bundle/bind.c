/* SPDX-License-Identifier: MIT */
/*
 * protobuf-c's generated structs are reached through their descriptors: the
 * member lies at .offset, its presence (has_x, an int) or length (n_x, a size_t)
 * at .quantifier_offset; strings and messages are absent when their pointer is
 * NULL. memcpy keeps this clear of aliasing rules.
 */
#include <stdio.h>
#include <string.h>

#include "bundle/bind.h"
#include "bundle/memory.h"
#include "core/error.h"
#include "core/text.h"

#define PATH_BYTES 96

bool gclk_field_is_count(const struct gclk_record *record, const struct gclk_field *field)
{
	for (unsigned i = 0; i < record->n_subs; i++) {
		if (record->subs[i].count_offset == field->offset) {
			return true;
		}
	}
	return false;
}

/* How many subrecords a record has. */
static unsigned sub_count(const struct gclk_record *record, const struct gclk_subrecord *sub,
			  const void *base)
{
	unsigned n;

	if (sub->count_offset < 0) {
		return sub->max;
	}
	for (unsigned i = 0; i < record->n_fields; i++) {
		if (record->fields[i].offset == sub->count_offset &&
		    gclk_record_has(base, record, i)) {
			n = (unsigned)gclk_record_get(base, &record->fields[i]);
			return n < sub->max ? n : sub->max;
		}
	}
	return 0;
}

static const void *sub_at(const struct gclk_subrecord *sub, const void *base, unsigned i)
{
	return (const char *)base + sub->offset + (size_t)i * sub->record->size;
}

bool gclk_record_is_empty(const struct gclk_record *record, const void *base)
{
	uint64_t has;

	memcpy(&has, base, sizeof(has));
	if (has) {
		return false;
	}
	for (unsigned i = 0; i < record->n_subs; i++) {
		const struct gclk_subrecord *sub = &record->subs[i];
		unsigned n = sub_count(record, sub, base);

		for (unsigned j = 0; j < n; j++) {
			if (!gclk_record_is_empty(sub->record, sub_at(sub, base, j))) {
				return false;
			}
		}
	}
	return true;
}

bool gclk_bind(struct gclk_binding *binding, const struct gclk_record *record,
	       const ProtobufCMessageDescriptor *message)
{
	*binding = (struct gclk_binding){ .record = record, .message = message };
	if (record->n_fields > GCLK_BIND_FIELDS || record->n_subs > GCLK_BIND_SUBS) {
		return false;
	}
	for (unsigned i = 0; i < record->n_fields; i++) {
		if (gclk_field_is_count(record, &record->fields[i])) {
			continue;
		}
		binding->fields[i] = protobuf_c_message_descriptor_get_field_by_name(
			message, record->fields[i].name);
		if (!binding->fields[i]) {
			return false;
		}
	}
	for (unsigned i = 0; i < record->n_subs; i++) {
		binding->subs[i] = protobuf_c_message_descriptor_get_field_by_name(
			message, record->subs[i].name);
		if (!binding->subs[i]) {
			return false;
		}
	}
	return true;
}

/* ---- messages ---- */

static void *member(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
	return (char *)message + field->offset;
}

static void *quantifier(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
	return (char *)message + field->quantifier_offset;
}

static const void *const_member(const ProtobufCMessage *message,
				const ProtobufCFieldDescriptor *field)
{
	return (const char *)message + field->offset;
}

ProtobufCMessage *gclk_message_new(const ProtobufCMessageDescriptor *descriptor,
				   ProtobufCAllocator *mem)
{
	ProtobufCMessage *message = gclk_mem_alloc(mem, descriptor->sizeof_message);

	if (message) {
		protobuf_c_message_init(descriptor, message);
	}
	return message;
}

ProtobufCMessage *gclk_message_child(const ProtobufCMessage *message,
				     const ProtobufCFieldDescriptor *field)
{
	ProtobufCMessage *child;

	memcpy(&child, const_member(message, field), sizeof(child));
	return child;
}

void gclk_message_set_child(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
			    ProtobufCMessage *child, ProtobufCAllocator *mem)
{
	ProtobufCMessage *old = gclk_message_child(message, field);

	if (old != child) {
		protobuf_c_message_free_unpacked(old, mem);
	}
	memcpy(member(message, field), &child, sizeof(child));
}

ProtobufCMessage **gclk_message_list(const ProtobufCMessage *message,
				     const ProtobufCFieldDescriptor *field, size_t *ret_n)
{
	ProtobufCMessage **list;

	memcpy(ret_n, (const char *)message + field->quantifier_offset, sizeof(*ret_n));
	memcpy(&list, const_member(message, field), sizeof(list));
	return list;
}

static void set_list(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
		     ProtobufCMessage **list, size_t n)
{
	memcpy(quantifier(message, field), &n, sizeof(n));
	memcpy(member(message, field), &list, sizeof(list));
}

static bool grow(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, size_t n,
		 ProtobufCAllocator *mem)
{
	size_t have;
	ProtobufCMessage **old = gclk_message_list(message, field, &have);
	ProtobufCMessage **list = gclk_mem_alloc(mem, n * sizeof(*list));

	if (!list) {
		return false;
	}
	if (have > 0) {
		memcpy(list, old, have * sizeof(*list));
	}
	gclk_mem_free(mem, old);
	set_list(message, field, list, have);
	for (; have < n; have++) {
		list[have] = gclk_message_new(field->descriptor, mem);
		if (!list[have]) {
			return false;
		}
		set_list(message, field, list, have + 1);
	}
	return true;
}

bool gclk_message_resize(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
			 size_t n, ProtobufCAllocator *mem)
{
	size_t have;
	ProtobufCMessage **list = gclk_message_list(message, field, &have);

	if (n > have) {
		return grow(message, field, n, mem);
	}
	while (have > n) {
		protobuf_c_message_free_unpacked(list[--have], mem);
	}
	if (n == 0) {
		gclk_mem_free(mem, list);
		list = NULL;
	}
	set_list(message, field, list, n);
	return true;
}

/* ---- one field ---- */

static int fail_at(struct gclk_error *reterr, enum gclk_status status, const char *path,
		   const char *name, const char *what)
{
	char where[PATH_BYTES];

	snprintf(where, sizeof(where), "%s.%s", path, name);
	return gclk_fail(reterr, status, where, GCLK_NO_OFFSET, "%s", what);
}

static void set_number(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
		       uint64_t value, bool present)
{
	protobuf_c_boolean has = present, truth = value != 0;
	uint32_t low = (uint32_t)value;

	memcpy(quantifier(message, field), &has, sizeof(has));
	switch (field->type) {
	case PROTOBUF_C_TYPE_BOOL:
		memcpy(member(message, field), &truth, sizeof(truth));
		break;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_ENUM:
		memcpy(member(message, field), &low, sizeof(low));
		break;
	default:
		memcpy(member(message, field), &value, sizeof(value));
	}
}

/* Sign-extended where the schema's type is signed. */
static uint64_t get_number(const ProtobufCMessage *message,
			   const ProtobufCFieldDescriptor *field)
{
	protobuf_c_boolean truth;
	uint32_t u32;
	int32_t i32;
	uint64_t value;

	switch (field->type) {
	case PROTOBUF_C_TYPE_BOOL:
		memcpy(&truth, const_member(message, field), sizeof(truth));
		return truth != 0;
	case PROTOBUF_C_TYPE_UINT32:
		memcpy(&u32, const_member(message, field), sizeof(u32));
		return u32;
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_ENUM:
		memcpy(&i32, const_member(message, field), sizeof(i32));
		return (uint64_t)(int64_t)i32;
	default:
		memcpy(&value, const_member(message, field), sizeof(value));
		return value;
	}
}

static bool has_number(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
	protobuf_c_boolean has;

	memcpy(&has, (const char *)message + field->quantifier_offset, sizeof(has));
	return has != 0;
}

/* An unsigned member narrower than its field in the schema. */
static bool fits(const struct gclk_field *row, uint64_t value)
{
	return row->size >= sizeof(value) || row->type == GCLK_TYPE_i32 ||
	       value >> 8 * row->size == 0;
}

static int set_text(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
		    const char *text, ProtobufCAllocator *mem)
{
	char *copy = NULL, *old;

	if (text) {
		copy = gclk_mem_alloc(mem, strlen(text) + 1);
		if (!copy) {
			return -GCLK_NOMEM;
		}
		memcpy(copy, text, strlen(text) + 1);
	}
	memcpy(&old, member(message, field), sizeof(old));
	if (old && old != field->default_value) {
		gclk_mem_free(mem, old);
	}
	memcpy(member(message, field), &copy, sizeof(copy));
	return 0;
}

static int set_bytes(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
		     const void *bytes, size_t size, ProtobufCAllocator *mem)
{
	ProtobufCBinaryData old, data = { .len = size };
	protobuf_c_boolean has = bytes != NULL;

	if (bytes) {
		data.data = gclk_mem_alloc(mem, size);
		if (!data.data) {
			return -GCLK_NOMEM;
		}
		memcpy(data.data, bytes, size);
	} else {
		data.len = 0;
	}
	memcpy(&old, member(message, field), sizeof(old));
	gclk_mem_free(mem, old.data);
	memcpy(member(message, field), &data, sizeof(data));
	memcpy(quantifier(message, field), &has, sizeof(has));
	return 0;
}

/* The row's field of the message becomes what the record has, or absent. */
static int set_field(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
		     const struct gclk_field *row, const void *base, bool present,
		     ProtobufCAllocator *mem, const char *path, struct gclk_error *reterr)
{
	const char *at = (const char *)base + row->offset;
	int r;

	switch (row->type) {
	case GCLK_TYPE_STRING:
		if (present && (!memchr(at, 0, row->size) ||
				!gclk_text_is_utf8(at, strlen(at)))) {
			return fail_at(reterr, GCLK_RANGE, path, row->name,
				       "the text is not UTF-8 with an end");
		}
		r = set_text(message, field, present ? at : NULL, mem);
		break;
	case GCLK_TYPE_BYTES:
		r = set_bytes(message, field, present ? at : NULL, row->size, mem);
		break;
	default:
		set_number(message, field, present ? gclk_record_get(base, row) : 0, present);
		return 0;
	}
	if (r < 0) {
		return fail_at(reterr, GCLK_NOMEM, path, row->name, "out of memory");
	}
	return 0;
}

static void mark_present(void *base, const struct gclk_field *row)
{
	uint64_t has;

	memcpy(&has, base, sizeof(has));
	has |= UINT64_C(1) << row->index;
	memcpy(base, &has, sizeof(has));
}

static int get_text(void *base, const struct gclk_field *row, const char *text,
		    const char *path, struct gclk_error *reterr)
{
	size_t n = strlen(text);

	if (n >= row->size) {
		return fail_at(reterr, GCLK_RANGE, path, row->name,
			       "the text is longer than its field");
	}
	if (!gclk_text_is_utf8(text, strlen(text))) {
		return fail_at(reterr, GCLK_MALFORMED, path, row->name, "the text is not UTF-8");
	}
	memcpy((char *)base + row->offset, text, n + 1);
	mark_present(base, row);
	return 0;
}

static int get_bytes(void *base, const struct gclk_field *row, const ProtobufCBinaryData *data,
		     const char *path, struct gclk_error *reterr)
{
	if (data->len != row->size) {
		return fail_at(reterr, GCLK_RANGE, path, row->name,
			       "the number of bytes is not the field's");
	}
	memcpy((char *)base + row->offset, data->data, data->len);
	mark_present(base, row);
	return 0;
}

static int get_field(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
		     const struct gclk_field *row, void *base, const char *path,
		     struct gclk_error *reterr)
{
	const char *text;
	ProtobufCBinaryData data;
	uint64_t value;

	if (row->type == GCLK_TYPE_STRING) {
		memcpy(&text, const_member(message, field), sizeof(text));
		return text ? get_text(base, row, text, path, reterr) : 0;
	}
	if (!has_number(message, field)) {
		return 0;
	}
	if (row->type == GCLK_TYPE_BYTES) {
		memcpy(&data, const_member(message, field), sizeof(data));
		return get_bytes(base, row, &data, path, reterr);
	}
	value = get_number(message, field);
	if (!fits(row, value)) {
		return fail_at(reterr, GCLK_RANGE, path, row->name,
			       "the value does not fit its field");
	}
	gclk_record_set(base, row, value);
	return 0;
}

/* ---- whole records ---- */

static int set_subs(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
		    const struct gclk_record *record, const struct gclk_subrecord *sub,
		    const void *base, ProtobufCAllocator *mem, const char *path,
		    struct gclk_error *reterr)
{
	unsigned n = gclk_record_is_empty(record, base) ? 0 : sub_count(record, sub, base);
	struct gclk_binding binding;
	char where[PATH_BYTES];
	size_t n_list;
	ProtobufCMessage **list;
	int r = 0;

	if (!gclk_bind(&binding, sub->record, field->descriptor)) {
		return fail_at(reterr, GCLK_UNSUPPORTED, path, sub->name,
			       "the schema has not all of its fields");
	}
	if (!gclk_message_resize(message, field, n, mem)) {
		return fail_at(reterr, GCLK_NOMEM, path, sub->name, "out of memory");
	}
	list = gclk_message_list(message, field, &n_list);
	for (unsigned i = 0; r == 0 && i < n; i++) {
		snprintf(where, sizeof(where), "%s.%s[%u]", path, sub->name, i);
		r = gclk_message_from_record(&binding, list[i], sub_at(sub, base, i), mem,
					     where, reterr);
	}
	return r;
}

int gclk_message_from_record(const struct gclk_binding *binding, ProtobufCMessage *message,
			     const void *base, ProtobufCAllocator *mem, const char *path,
			     struct gclk_error *reterr)
{
	const struct gclk_record *record = binding->record;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < record->n_fields; i++) {
		if (binding->fields[i]) {
			r = set_field(message, binding->fields[i], &record->fields[i], base,
				      gclk_record_has(base, record, i), mem, path, reterr);
		}
	}
	for (unsigned i = 0; r == 0 && i < record->n_subs; i++) {
		r = set_subs(message, binding->subs[i], record, &record->subs[i], base, mem,
			     path, reterr);
	}
	return r;
}

/* The list's length is the record's count, where it has one. */
static void set_count(void *base, const struct gclk_record *record,
		      const struct gclk_subrecord *sub, size_t n)
{
	for (unsigned i = 0; n > 0 && i < record->n_fields; i++) {
		if (record->fields[i].offset == sub->count_offset) {
			gclk_record_set(base, &record->fields[i], n);
		}
	}
}

static int get_subs(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
		    const struct gclk_record *record, const struct gclk_subrecord *sub,
		    void *base, const char *path, struct gclk_error *reterr)
{
	struct gclk_binding binding;
	char where[PATH_BYTES];
	size_t n;
	ProtobufCMessage **list = gclk_message_list(message, field, &n);
	int r = 0;

	if (!gclk_bind(&binding, sub->record, field->descriptor)) {
		return fail_at(reterr, GCLK_UNSUPPORTED, path, sub->name,
			       "the schema has not all of its fields");
	}
	if (n > sub->max) {
		return fail_at(reterr, GCLK_RANGE, path, sub->name,
			       "more of them than are possible");
	}
	set_count(base, record, sub, n);
	for (size_t i = 0; r == 0 && i < n; i++) {
		snprintf(where, sizeof(where), "%s.%s[%zu]", path, sub->name, i);
		r = gclk_record_from_message(&binding,
					     (char *)base + sub->offset + i * sub->record->size,
					     list[i], where, reterr);
	}
	return r;
}

int gclk_record_from_message(const struct gclk_binding *binding, void *base,
			     const ProtobufCMessage *message, const char *path,
			     struct gclk_error *reterr)
{
	const struct gclk_record *record = binding->record;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < record->n_fields; i++) {
		if (binding->fields[i]) {
			r = get_field(message, binding->fields[i], &record->fields[i], base,
				      path, reterr);
		}
	}
	for (unsigned i = 0; r == 0 && i < record->n_subs; i++) {
		r = get_subs(message, binding->subs[i], record, &record->subs[i], base, path,
			     reterr);
	}
	return r;
}
