/*
 * libcurl's sockets and its timer in the worker's epoll loop.
 *
 * Runs in a worker. Never calls libcurl from one of its callbacks.
 *
 * A kept connection is watched and unwatched by libcurl around every call. To save the two system
 * calls, a socket stays in epoll when libcurl stops wanting it; only if an event comes then (the
 * provider closes the idle connection) is it taken out. That is safe only for sockets whose closing
 * we see, because the kernel takes a closed descriptor out by itself and its number comes again:
 * those that were opened through our callbacks. The others (the resolver's) are taken out at once.
 */
#include "worker/transfer_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"

#define SOCKETS_MIN 1024

static struct sl_socket_slot *get_slot(struct sl_transfers *transfers, int fd)
{
    size_t idx = (size_t)fd;

    SL_ASSERT(fd >= 0);
    if (idx >= transfers->socket_count) {
        size_t count = SL_MAX(SL_MAX(idx + 1, transfers->socket_count * 2), (size_t)SOCKETS_MIN);
        struct sl_socket_slot *slots = realloc(transfers->sockets, count * sizeof(*slots));
        if (slots == NULL) {
            return NULL;
        }
        memset(slots + transfers->socket_count, 0,
               (count - transfers->socket_count) * sizeof(*slots));
        transfers->sockets = slots;
        transfers->socket_count = count;
    }
    return &transfers->sockets[idx];
}

static void unwatch(struct sl_transfers *transfers, int fd, struct sl_socket_slot *slot)
{
    if (slot->registered != 0) {
        (void)epoll_ctl(transfers->options.epoll_fd, EPOLL_CTL_DEL, fd, NULL); /* may be closed */
        slot->registered = 0;
    }
}

static int watch(struct sl_transfers *transfers, int fd, struct sl_socket_slot *slot)
{
    struct epoll_event event = {.events = slot->wanted,
                                .data.u64 = transfers->options.epoll_tag | (uint32_t)fd};
    int epoll_fd = transfers->options.epoll_fd;

    if (slot->registered == slot->wanted) {
        return 0;
    }
    int first = slot->registered == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    int rc = epoll_ctl(epoll_fd, first, fd, &event);
    if (rc != 0 && (errno == EEXIST || errno == ENOENT)) {
        rc =
            epoll_ctl(epoll_fd, first == EPOLL_CTL_ADD ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
    }
    slot->registered = rc == 0 ? slot->wanted : 0;
    return rc;
}

static uint32_t events_of(int what)
{
    switch (what) {
    case CURL_POLL_IN:
        return EPOLLIN;
    case CURL_POLL_OUT:
        return EPOLLOUT;
    case CURL_POLL_INOUT:
        return EPOLLIN | EPOLLOUT;
    default: /* CURL_POLL_REMOVE: an int of libcurl, not an enum */
        return 0;
    }
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *socket_user)
{
    struct sl_shard *shard = user;
    struct sl_transfers *transfers = shard->owner;
    struct sl_socket_slot *slot = get_slot(transfers, fd);

    (void)easy;
    (void)socket_user;
    if (slot == NULL) {
        return -1;
    }
    slot->shard = shard;
    slot->wanted = events_of(what);
    if (slot->wanted != 0) {
        return watch(transfers, fd, slot);
    }
    if (!slot->is_ours) {
        unwatch(transfers, fd, slot);
    }
    return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *user)
{
    struct sl_shard *shard = user;

    (void)multi;
    /* From this moment, not from the turn's beginning: libcurl says it once, and a call that comes
     * before its own clock agrees finds nothing due, and no further word of it ever comes. */
    shard->due_ns =
        timeout_ms < 0 ? INT64_MAX : sl_time_add(sl_clock_mono_ns(), timeout_ms * SL_NS_PER_MS);
    return 0;
}

static curl_socket_t on_open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct sl_transfer *transfer = user;

    (void)purpose;
    sl_transfer_note_name(transfer);
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    address->protocol);
    if (fd < 0) {
        return CURL_SOCKET_BAD;
    }
    struct sl_socket_slot *slot = get_slot(transfer->owner, fd);
    if (slot == NULL) {
        close(fd);
        return CURL_SOCKET_BAD;
    }
    *slot = (struct sl_socket_slot){.is_ours = true};
    return fd;
}

/* The engine, not the transfer: a connection outlives the transfer that opened it. */
static int on_close_socket(void *user, curl_socket_t fd)
{
    struct sl_transfers *transfers = user;

    if ((size_t)fd < transfers->socket_count) {
        transfers->sockets[fd] = (struct sl_socket_slot){0};
    }
    return close(fd);
}

void sl_shard_set_socket_callbacks(struct sl_shard *shard)
{
    curl_multi_setopt(shard->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(shard->multi, CURLMOPT_SOCKETDATA, shard);
    curl_multi_setopt(shard->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(shard->multi, CURLMOPT_TIMERDATA, shard);
}

void sl_transfer_set_socket_callbacks(struct sl_transfer *transfer)
{
    curl_easy_setopt(transfer->easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    curl_easy_setopt(transfer->easy, CURLOPT_OPENSOCKETDATA, transfer);
    curl_easy_setopt(transfer->easy, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
    curl_easy_setopt(transfer->easy, CURLOPT_CLOSESOCKETDATA, transfer->owner);
}

/* Errors and hang-ups go to libcurl as readiness: it then meets the error itself, after the bytes
 * that came before it. CURL_CSELECT_ERR would throw those away. */
static int mask_of(const struct sl_socket_slot *slot, uint32_t events)
{
    int mask = 0;

    if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
        events |= slot->wanted;
    }
    if ((events & EPOLLIN) != 0) {
        mask |= CURL_CSELECT_IN;
    }
    if ((events & EPOLLOUT) != 0) {
        mask |= CURL_CSELECT_OUT;
    }
    return mask;
}

void sl_transfers_event(struct sl_transfers *transfers, int fd, uint32_t events)
{
    struct sl_socket_slot *slot = get_slot(transfers, fd);
    int running = 0;

    if (slot == NULL || slot->registered == 0) {
        return; /* closed by an event before this one in the same batch */
    }
    if (slot->wanted == 0) {
        unwatch(transfers, fd, slot);
        return;
    }
    CURLMcode rc =
        curl_multi_socket_action(slot->shard->multi, fd, mask_of(slot, events), &running);
    SL_ASSERT(rc == CURLM_OK || rc == CURLM_BAD_SOCKET);
}
