/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "image/worker/facts.h"
#include "image/worker/far.h"
#include "image/worker/frames.h"

#define PIECES_MAX 12

uint32_t gclk_frames_layout(void)
{
	static const uint32_t sizes[] = {
		sizeof(struct gclk_state), sizeof(struct gclk_domain), sizeof(struct gclk_facts),
		sizeof(struct gclk_said_change), sizeof(struct gclk_said_field),
		sizeof(struct gclk_snapshot), sizeof(struct gclk_error),
		sizeof(struct gclk_ask_open), sizeof(struct gclk_far_options),
		sizeof(struct gclk_far_facts), sizeof(struct gclk_far_patch),
		sizeof(struct gclk_far_ask), sizeof(struct gclk_far_answer),
	};
	uint32_t all = 0;

	for (unsigned i = 0; i < GCLK_COUNT(sizes); i++) {
		all = all * 31 + sizes[i];
	}
	return all;
}

static int gone(struct gclk_error *reterr)
{
	return gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
			 "the confined process that reads the file is gone");
}

/* The descriptor goes with the first byte. */
static void attach(struct msghdr *message, void *control, size_t n_control, int fd)
{
	struct cmsghdr *head;

	memset(control, 0, n_control);
	message->msg_control = control;
	message->msg_controllen = n_control;
	head = CMSG_FIRSTHDR(message);
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(head), &fd, sizeof(fd));
}

/* Leaves out what has been sent. */
static void advance(struct msghdr *message, size_t n)
{
	while (message->msg_iovlen && n >= message->msg_iov->iov_len) {
		n -= message->msg_iov->iov_len;
		message->msg_iov++;
		message->msg_iovlen--;
	}
	if (message->msg_iovlen) {
		message->msg_iov->iov_base = (uint8_t *)message->msg_iov->iov_base + n;
		message->msg_iov->iov_len -= n;
	}
	message->msg_control = NULL;
	message->msg_controllen = 0;
}

static struct iovec vector_of(struct gclk_piece piece)
{
	return (struct iovec){ (void *)(uintptr_t)piece.bytes, piece.n };
}

static int send_all(int socket, struct msghdr *message, struct gclk_error *reterr)
{
	while (message->msg_iovlen) {
		ssize_t n = sendmsg(socket, message, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n < 0) {
			return gone(reterr);
		}
		advance(message, (size_t)n);
	}
	return 0;
}

static int send_frame(int socket, struct gclk_piece before, enum gclk_frame_type type,
		      const struct gclk_piece *pieces, unsigned n_pieces, int fd,
		      struct gclk_error *reterr)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	uint32_t head[2] = { type, 0 };
	struct iovec vectors[PIECES_MAX + 2] = { vector_of(before), { head, sizeof(head) } };
	struct msghdr message = { .msg_iov = vectors, .msg_iovlen = n_pieces + 2 };
	size_t total = 0;

	for (unsigned i = 0; i < n_pieces; i++) {
		vectors[i + 2] = vector_of(pieces[i]);
		total += pieces[i].n;
	}
	if (total > GCLK_FRAME_MAX) {
		errno = EMSGSIZE;
		return gclk_fail(reterr, GCLK_RANGE, NULL, GCLK_NO_OFFSET,
				 "%zu bytes are more than one frame holds", total);
	}
	head[1] = (uint32_t)total;
	if (fd >= 0) {
		attach(&message, control, sizeof(control), fd);
	}
	return send_all(socket, &message, reterr);
}

int gclk_frame_send(int socket, enum gclk_frame_type type, const struct gclk_piece *pieces,
		    unsigned n_pieces, int fd, struct gclk_error *reterr)
{
	return send_frame(socket, (struct gclk_piece){ 0 }, type, pieces, n_pieces, fd, reterr);
}

int gclk_frame_send_behind(int socket, struct gclk_piece before, enum gclk_frame_type type,
			   const struct gclk_piece *pieces, unsigned n_pieces,
			   struct gclk_error *reterr)
{
	return send_frame(socket, before, type, pieces, n_pieces, -1, reterr);
}

static int take_fd(struct msghdr *message)
{
	struct cmsghdr *head = CMSG_FIRSTHDR(message);
	int fd = -1;

	if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
	    head->cmsg_len == CMSG_LEN(sizeof(fd))) {
		memcpy(&fd, CMSG_DATA(head), sizeof(fd));
	}
	return fd;
}

/* All @n bytes; fewer only at the end. */
static ssize_t receive(int socket, void *to, size_t n, int *ret_fd)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	size_t done = 0;

	while (done < n) {
		struct iovec vector = { (uint8_t *)to + done, n - done };
		struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };
		ssize_t r;

		if (ret_fd && *ret_fd < 0) {
			message.msg_control = control;
			message.msg_controllen = sizeof(control);
		}
		r = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
		if (r < 0 && errno == EINTR) {
			continue;
		}
		if (r <= 0) {
			errno = r < 0 ? errno : ECONNRESET;
			return r < 0 ? r : (ssize_t)done;
		}
		if (message.msg_control) {
			*ret_fd = take_fd(&message);
		}
		done += (size_t)r;
	}
	return (ssize_t)done;
}

/* Why it did not come stays in errno. */
static int not_whole(struct gclk_frame *frame, struct gclk_error *reterr)
{
	int saved = errno;

	gclk_frame_free(frame);
	errno = saved;
	return gone(reterr);
}

int gclk_frame_receive(int socket, bool with_fd, struct gclk_frame *ret,
		       struct gclk_error *reterr)
{
	uint32_t head[2];
	ssize_t n;

	*ret = (struct gclk_frame){ .fd = -1 };
	n = receive(socket, head, sizeof(head), with_fd ? &ret->fd : NULL);
	if (n == 0) {
		return 1;
	}
	if (n != (ssize_t)sizeof(head)) {
		return not_whole(ret, reterr);
	}
	if (head[1] > GCLK_FRAME_MAX) {
		gclk_frame_free(ret);
		errno = EPROTO;
		return gclk_fail(reterr, GCLK_PEER, NULL, GCLK_NO_OFFSET,
				 "a frame of %" PRIu32 " bytes", head[1]);
	}
	ret->type = head[0];
	ret->size = head[1];
	ret->bytes = malloc((size_t)ret->size + 1);
	if (!ret->bytes) {
		gclk_frame_free(ret);
		return gclk_fail(reterr, GCLK_NOMEM, NULL, GCLK_NO_OFFSET, "out of memory");
	}
	if (receive(socket, ret->bytes, ret->size, NULL) != (ssize_t)ret->size) {
		return not_whole(ret, reterr);
	}
	return 0;
}

void gclk_frame_free(struct gclk_frame *frame)
{
	if (frame->fd >= 0) {
		close(frame->fd);
	}
	free(frame->bytes);
	*frame = (struct gclk_frame){ .fd = -1 };
}

bool gclk_rest_take(struct gclk_rest *rest, void *to, size_t n)
{
	if (rest->n < n) {
		return false;
	}
	if (n) { /* there may be nowhere to take nothing to */
		memcpy(to, rest->at, n);
	}
	rest->at += n;
	rest->n -= n;
	return true;
}
