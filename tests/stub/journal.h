#ifndef SL_TESTS_STUB_JOURNAL_H
#define SL_TESTS_STUB_JOURNAL_H

/*
 * The log of calls asked: lines gathered in memory and written together.
 * Stub only; guarded by the caller; a write may block as the file's device does.
 */

#include "common/err.h"
#include "tests/stub/text.h"

struct sl_stub_journal {
    int fd; /* -1: no log is wanted */
    struct sl_stub_text lines;
    int64_t first_ns; /* when the oldest line in memory was added */
};

/* Opens FILE for appending; NULL: no log. SL_ERR_IO with errno. */
MUST_CHECK enum sl_err sl_stub_journal_open(struct sl_stub_journal *journal, const char *file);
/* Where a line is to be put; ends with sl_stub_journal_added. */
struct sl_stub_text *sl_stub_journal_text(struct sl_stub_journal *journal);
void sl_stub_journal_added(struct sl_stub_journal *journal, int64_t now_ns);
/* Milliseconds until lines in memory are due; `max_ms` when there are none. Writes what is due. */
int sl_stub_journal_tick(struct sl_stub_journal *journal, int64_t now_ns, int max_ms);
/* Writes all lines now. */
void sl_stub_journal_flush(struct sl_stub_journal *journal);
void sl_stub_journal_close(struct sl_stub_journal *journal);

#endif
