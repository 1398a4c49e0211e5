/*
 * The stub's log file: see journal.h.
 *
 * Runs in sluice-stub only, under the desk's lock. Lines are written whole and in order, after 100
 * ms or when 1 MiB has gathered, so that a log costs a copy per call. After SIGTERM, SIGINT or
 * SIGUSR1 the file is complete; SIGKILL may cost the last 100 ms. A write that fails ends the
 * program with status 5: a test must not judge by a log with a hole.
 */
#include "tests/stub/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/limits.h"
#include "common/os.h"

#define FLUSH_NS (100 * SL_NS_PER_MS)
#define FLUSH_BYTES SL_MIB

enum sl_err sl_stub_journal_open(struct sl_stub_journal *journal, const char *file)
{
    memset(journal, 0, sizeof(*journal));
    journal->fd = -1;
    if (file == NULL) {
        return SL_OK;
    }
    journal->fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    return journal->fd < 0 ? SL_ERR_IO : SL_OK;
}

struct sl_stub_text *sl_stub_journal_text(struct sl_stub_journal *journal)
{
    return &journal->lines;
}

void sl_stub_journal_added(struct sl_stub_journal *journal, int64_t now_ns)
{
    if (journal->first_ns == 0) {
        journal->first_ns = now_ns;
    }
    if (journal->lines.len >= FLUSH_BYTES) {
        sl_stub_journal_flush(journal);
    }
}

int sl_stub_journal_tick(struct sl_stub_journal *journal, int64_t now_ns, int max_ms)
{
    if (journal->first_ns == 0) {
        return max_ms;
    }
    if (now_ns - journal->first_ns >= FLUSH_NS) {
        sl_stub_journal_flush(journal);
        return max_ms;
    }
    return sl_time_left_ms(journal->first_ns + FLUSH_NS, now_ns, max_ms);
}

void sl_stub_journal_flush(struct sl_stub_journal *journal)
{
    size_t done = 0;

    while (done < journal->lines.len) {
        ssize_t count = write(journal->fd, journal->lines.buf + done, journal->lines.len - done);
        if (count < 0 && errno != EINTR) {
            fprintf(stderr, "sluice-stub: cannot write the log: %s\n", strerror(errno));
            exit(sl_err_exit_status(SL_ERR_IO));
        }
        done += count > 0 ? (size_t)count : 0;
    }
    journal->lines.len = 0;
    journal->first_ns = 0;
}

void sl_stub_journal_close(struct sl_stub_journal *journal)
{
    sl_stub_journal_flush(journal);
    sl_os_close(&journal->fd);
    sl_stub_text_fini(&journal->lines);
}
