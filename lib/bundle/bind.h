/* SPDX-License-Identifier: MIT */
/*
 * Records and protobuf-c messages, joined by the names of their fields.
 *
 * A row of a field table and a field of the schema belong together when they
 * have the same name, subrecords and repeated messages likewise; a row that
 * counts subrecords is the length of their list and no field of the schema. So a
 * new field needs a row and a line in proto/, and nothing here. What the schema
 * has beyond the rows, and what it does not know, stays untouched in a message.
 */
#ifndef GCLK_BUNDLE_BIND_H
#define GCLK_BUNDLE_BIND_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

#include <guestclock/record.h>

#define GCLK_BIND_FIELDS 64	/* a record has one bit per field in 64 */
#define GCLK_BIND_SUBS 2

struct gclk_binding {
	const struct gclk_record *record;
	const ProtobufCMessageDescriptor *message;
	const ProtobufCFieldDescriptor *fields[GCLK_BIND_FIELDS]; /* NULL: a count */
	const ProtobufCFieldDescriptor *subs[GCLK_BIND_SUBS];
};

/* Is this row the number of a record's subrecords? */
bool gclk_field_is_count(const struct gclk_record *record, const struct gclk_field *field);

/* No field present, in no subrecord either. */
bool gclk_record_is_empty(const struct gclk_record *record, const void *base);

/**
 * gclk_bind() - look every field up once, before a loop over records
 *
 * Returns false when the schema lacks one: our own bug, and a test finds it.
 */
bool gclk_bind(struct gclk_binding *binding, const struct gclk_record *record,
	       const ProtobufCMessageDescriptor *message);

/**
 * gclk_message_from_record() - write a record into its message
 * @message:	new, or with earlier content: of that the rows' fields are replaced
 * @mem:	where the message's parts live
 * @path:	prefix of the place in an error
 *
 * Errors: GCLK_NOMEM, GCLK_RANGE for text that is not UTF-8.
 */
int gclk_message_from_record(const struct gclk_binding *binding, ProtobufCMessage *message,
			     const void *base, ProtobufCAllocator *mem, const char *path,
			     struct gclk_error *reterr);

/**
 * gclk_record_from_message() - read a record out of its message
 * @base:	zeroed
 *
 * Errors: GCLK_RANGE for a value that does not fit its member. Ranges of values
 * are gclk_record_validate()'s.
 */
int gclk_record_from_message(const struct gclk_binding *binding, void *base,
			     const ProtobufCMessage *message, const char *path,
			     struct gclk_error *reterr);

/* An empty message, or NULL. */
ProtobufCMessage *gclk_message_new(const ProtobufCMessageDescriptor *descriptor,
				   ProtobufCAllocator *mem);

/* The message in a field that is not repeated, or NULL. */
ProtobufCMessage *gclk_message_child(const ProtobufCMessage *message,
				     const ProtobufCFieldDescriptor *field);

/* Puts @child, or NULL, there and frees what was. */
void gclk_message_set_child(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
			    ProtobufCMessage *child, ProtobufCAllocator *mem);

/* The messages of a repeated field; the array is the message's. */
ProtobufCMessage **gclk_message_list(const ProtobufCMessage *message,
				     const ProtobufCFieldDescriptor *field, size_t *ret_n);

/* Makes a list @n long: cuts its end off, or adds empty messages. False: no memory. */
bool gclk_message_resize(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
			 size_t n, ProtobufCAllocator *mem);

#endif
