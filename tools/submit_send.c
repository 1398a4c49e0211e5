/*
 * Input file to accepted tasks.
 *
 * Runs in sluice-submit. One line at a time: scanned once, packed once, so memory does not depend
 * on the length of the file. The first bad line, and the first task the broker refuses, ends it;
 * what stands before the line is handed in before the error is reported.
 *
 * Ids that stand twice in one input are refused with their line. The first 1,572,864 ids are
 * remembered as hashes (16 MiB); a match is looked up in the file itself before it is believed,
 * where the input is a file. Beyond that number the broker still refuses an id with two different
 * bodies; one that stands twice with the same body is a single task, and is refused at the end when
 * the job is a new one, for then nothing in it can have been known.
 *
 * Nothing here survives a crash; accepted tasks are the broker's. Errors: SL_ERR_INPUT,
 * SL_ERR_BODY_TOO_LARGE, SL_ERR_INTERRUPTED and everything the client library reports.
 */
#include "tools/submit.h"

#include <errno.h>
#include <stdio.h>

#include "common/check.h"
#include "tools/idset.h"

#define DRAW_EVERY_LINES 256

struct sending {
    struct sl_submit *submit;
    struct sl_line_reader *reader;
    struct sl_idset ids;
};

/* A fault with a place in the input. */
static enum sl_err fail_at(struct sl_submit *submit, enum sl_err err, uint64_t line, size_t column,
                           const char *reason)
{
    submit->has_bad_line = true;
    return sl_tool_fail(&submit->tool, err, "%s:%llu:%zu: %s", submit->input.name,
                        (unsigned long long)line, column, reason);
}

/* ---- duplicates ------------------------------------------------------------------------------ */

/* What is looked for in the input, from its beginning: the first line with this id, but no line
 * behind `last_line`, which ends the search. */
struct search {
    struct sl_span id; /* empty: only the last line is wanted */
    uint64_t last_line;
    uint64_t found_line; /* 0: the input ended before, or cannot be read again */
    char found_id[SL_ID_BYTES_MAX + 1];
};

static void search_input(struct sl_input *input, struct sl_line_reader *reader,
                         struct search *search)
{
    struct sl_task_msg task;
    struct sl_line_fault fault;
    struct sl_span line;
    bool has_line = true;
    bool is_empty;

    while (sl_input_next(input, &line, &has_line) == SL_OK && has_line) {
        uint64_t number = input->line_number;
        if (sl_line_read(reader, line, number, &task, &is_empty, &fault) != SL_OK || is_empty) {
            continue;
        }
        if (number >= search->last_line || sl_span_equal(task.custom_id, search->id)) {
            search->found_line = number;
            (void)!sl_span_copy_str(search->found_id, sizeof(search->found_id), task.custom_id);
            return;
        }
    }
}

/* Searches the input, where it is a file. */
static void search(const struct sl_submit *submit, struct search *search)
{
    struct sl_line_reader *reader = sl_line_reader_open(&submit->defaults);
    struct sl_input again;
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", submit->input.fd);
    if (submit->input.file_bytes > 0 && reader != NULL &&
        sl_input_open(&again, path, submit->input.stop_fd) == SL_OK) {
        search_input(&again, reader, search);
        sl_input_close(&again);
    }
    sl_line_reader_close(&reader);
}

static enum sl_err check_duplicate(struct sending *sending, const struct sl_task_msg *task)
{
    struct sl_submit *submit = sending->submit;
    uint64_t number = submit->input.line_number;
    struct search twin = {.id = task->custom_id, .last_line = number};
    char reason[SL_ID_BYTES_MAX + 128];

    if (!sl_idset_add(&sending->ids, task->custom_id)) {
        return SL_OK;
    }
    search(submit, &twin);
    if (twin.found_line == number) {
        return SL_OK; /* two ids with one hash */
    }
    int len = snprintf(reason, sizeof(reason), "the id %.*s stands twice in this input",
                       (int)task->custom_id.len, task->custom_id.ptr);
    if (twin.found_line != 0) {
        snprintf(reason + len, sizeof(reason) - (size_t)len, ", first in line %llu",
                 (unsigned long long)twin.found_line);
    }
    return fail_at(submit, SL_ERR_INPUT, number, 1, reason);
}

/* A task the broker refused, by its line, and by its id where the input can be read again. */
static void fail_refused(struct sl_submit *submit, enum sl_err err, uint64_t line)
{
    struct search task = {.last_line = line};
    char reason[SL_MESSAGE_BYTES_MAX + SL_ID_BYTES_MAX + 8];

    search(submit, &task);
    snprintf(reason, sizeof(reason), "%s%s%s", task.found_id, task.found_line != 0 ? ": " : "",
             submit->tool.fault.text);
    (void)fail_at(submit, err, line, 1, reason);
}

/* Beyond the ids remembered, the broker's count gives duplicates away where the job was empty. */
static enum sl_err check_known(struct sending *sending)
{
    struct sl_submit *submit = sending->submit;

    if (!sl_idset_is_full(&sending->ids) || submit->job.total > 0 || submit->known == 0) {
        return SL_OK;
    }
    return sl_tool_fail(&submit->tool, SL_ERR_INPUT,
                        "%s: %llu lines repeat an id of an earlier line; each id was taken once",
                        submit->input.name, (unsigned long long)submit->known);
}

/* ---- lines ----------------------------------------------------------------------------------- */

static enum sl_err fail_reading(struct sl_submit *submit, enum sl_err err)
{
    char reason[128];

    if (err == SL_ERR_INTERRUPTED) {
        return sl_tool_fail(&submit->tool, err, "interrupted");
    }
    if (err != SL_ERR_INPUT) {
        return sl_tool_fail(&submit->tool, err, "%s", sl_err_meaning(err));
    }
    if (errno == 0) {
        snprintf(reason, sizeof(reason), "the line is longer than %zu bytes", SL_LINE_BYTES_MAX);
    } else {
        snprintf(reason, sizeof(reason), "cannot be read: %s", strerror(errno));
    }
    return fail_at(submit, err, submit->input.line_number, 1, reason);
}

static enum sl_err hand_in(struct sending *sending, const struct sl_task_msg *task)
{
    struct sl_submit *submit = sending->submit;

    if (submit->is_dry_run) {
        return SL_OK;
    }
    enum sl_err err = sl_client_submit(submit->tool.client, task, submit->input.line_number);
    return err == SL_OK ? SL_OK : sl_tool_keep_fault(&submit->tool, err);
}

static void show_progress(struct sl_submit *submit)
{
    if (!submit->progress.is_on || submit->input.line_number % DRAW_EVERY_LINES != 0) {
        return;
    }
    submit->progress.done = submit->tasks;
    if (submit->input.file_bytes > 0) {
        submit->progress.share =
            (double)submit->input.bytes_read / (double)submit->input.file_bytes;
    }
    sl_progress_draw(&submit->progress);
}

static enum sl_err send_line(struct sending *sending, struct sl_span line)
{
    struct sl_submit *submit = sending->submit;
    struct sl_task_msg task;
    struct sl_line_fault fault;
    bool is_empty = false;
    enum sl_err err =
        sl_line_read(sending->reader, line, submit->input.line_number, &task, &is_empty, &fault);

    if (err == SL_ERR_INPUT || err == SL_ERR_BODY_TOO_LARGE) {
        return fail_at(submit, err, submit->input.line_number, fault.column, fault.reason);
    }
    if (err != SL_OK || is_empty) {
        return err == SL_OK ? SL_OK : sl_tool_fail(&submit->tool, err, "%s", sl_err_meaning(err));
    }
    err = check_duplicate(sending, &task);
    if (err == SL_OK) {
        err = hand_in(sending, &task);
    }
    if (err == SL_OK) {
        submit->tasks++;
        show_progress(submit);
    }
    return err;
}

static enum sl_err send_lines(struct sending *sending)
{
    for (;;) {
        struct sl_span line;
        bool has_line;
        enum sl_err err = sl_input_next(&sending->submit->input, &line, &has_line);
        if (err != SL_OK) {
            return fail_reading(sending->submit, err);
        }
        if (!has_line) {
            return SL_OK;
        }
        err = send_line(sending, line);
        if (err != SL_OK) {
            return err;
        }
    }
}

/* ---- the end --------------------------------------------------------------------------------- */

/* Sees what was handed in through to the disk, also after an error, so that the counts are final.
 * A task that the broker refused stands before a line that is bad: its error goes first. */
static enum sl_err settle(struct sl_submit *submit, enum sl_err err)
{
    struct sl_client_fault kept = submit->tool.fault;
    enum sl_err flushed = err == SL_ERR_INTERRUPTED ? SL_OK : sl_client_flush(submit->tool.client);
    struct sl_client_counts counts = sl_client_get_counts(submit->tool.client);

    submit->accepted = counts.accepted;
    submit->known = counts.known;
    if (counts.is_refused && flushed != SL_OK) {
        (void)sl_tool_keep_fault(&submit->tool, flushed);
        if (counts.is_tag_known) {
            fail_refused(submit, flushed, counts.refused_tag);
        }
        return flushed;
    }
    if (err != SL_OK) {
        submit->tool.fault = kept;
        return err;
    }
    return flushed == SL_OK ? SL_OK : sl_tool_keep_fault(&submit->tool, flushed);
}

enum sl_err sl_submit_send(struct sl_submit *submit)
{
    struct sending sending = {.submit = submit};

    sending.reader = sl_line_reader_open(&submit->defaults);
    if (sending.reader == NULL || !sl_idset_init(&sending.ids)) {
        sl_line_reader_close(&sending.reader);
        return sl_tool_fail(&submit->tool, SL_ERR_NO_MEMORY, "%s",
                            sl_err_meaning(SL_ERR_NO_MEMORY));
    }
    sl_progress_begin(&submit->progress, submit->is_dry_run ? "checking" : "submitting", 0);
    enum sl_err err = send_lines(&sending);
    if (!submit->is_dry_run) {
        err = settle(submit, err);
    }
    if (err == SL_OK) {
        err = check_known(&sending);
    }
    sl_progress_clear(&submit->progress);
    sl_idset_fini(&sending.ids);
    sl_line_reader_close(&sending.reader);
    return err;
}
