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

/* The line before `number` that has this id; 0: none. */
static uint64_t find_id_in(struct sl_input *input, struct sl_line_reader *reader, struct sl_span id,
                           uint64_t number)
{
    struct sl_task_msg task;
    struct sl_line_fault fault;
    struct sl_span line;
    bool has_line = true;
    bool is_empty;

    while (sl_input_next(input, &line, &has_line) == SL_OK && has_line &&
           input->line_number < number) {
        enum sl_err err = sl_line_read(reader, line, input->line_number, &task, &is_empty, &fault);
        if (err == SL_OK && !is_empty && sl_span_equal(task.custom_id, id)) {
            return input->line_number;
        }
    }
    return 0;
}

/* Looks the id up in the input itself. False: it cannot be read again (a pipe). */
static bool look_up_id(const struct sending *sending, struct sl_span id, uint64_t *found_line)
{
    const struct sl_input *input = &sending->submit->input;
    struct sl_line_reader *reader = sl_line_reader_open(&sending->submit->defaults);
    struct sl_input again;
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", input->fd);
    if (input->file_bytes == 0 || reader == NULL ||
        sl_input_open(&again, path, input->stop_fd) != SL_OK) {
        sl_line_reader_close(&reader);
        return false;
    }
    *found_line = find_id_in(&again, reader, id, input->line_number);
    sl_input_close(&again);
    sl_line_reader_close(&reader);
    return true;
}

static enum sl_err check_duplicate(struct sending *sending, const struct sl_task_msg *task)
{
    struct sl_submit *submit = sending->submit;
    uint64_t found_line = 0;
    char reason[256];

    if (!sl_idset_add(&sending->ids, task->custom_id)) {
        return SL_OK;
    }
    bool was_looked_up = look_up_id(sending, task->custom_id, &found_line);
    if (was_looked_up && found_line == 0) {
        return SL_OK; /* two ids with one hash */
    }
    int len = snprintf(reason, sizeof(reason), "the id stands twice in this input");
    if (found_line != 0) {
        snprintf(reason + len, sizeof(reason) - (size_t)len, ", first in line %llu",
                 (unsigned long long)found_line);
    }
    return fail_at(submit, SL_ERR_INPUT, submit->input.line_number, 1, reason);
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
        kept = submit->tool.fault;
        if (counts.is_tag_known) {
            (void)fail_at(submit, flushed, counts.refused_tag, 1, kept.text);
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
