/*
 * Output lines: the provider's answer as it came, around it what the queue knows.
 *
 * Runs in sluice-submit and sluice-ctl. Lines are collected and written in pieces of 256 KiB; the
 * caller flushes when it is about to wait, so a follower sees results at once. An answer that is
 * JSON is put on one line without touching its tokens; one that is not becomes a JSON string.
 *
 * Never the only copy of anything: the store keeps results until their job is purged, so after a
 * failed write the same command writes the file again. Reports SL_ERR_OUTPUT with errno.
 */
#include "tools/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"
#include "common/limits.h"
#include "common/os.h"

#define WRITE_BYTES (256 * SL_KIB)
/* A buffer that a huge answer made larger than this is given back. */
#define KEEP_BYTES (4 * SL_MIB)

/* ---- lines ----------------------------------------------------------------------------------- */

static void put(struct sl_json_text *text, const char *literal)
{
    sl_json_put_raw(text, sl_span_str(literal));
}

/* A string, or null where it is empty. */
static void put_string_or_null(struct sl_json_text *text, struct sl_span value)
{
    if (value.len == 0) {
        put(text, "null");
    } else {
        sl_json_put_string(text, value);
    }
}

static void put_response(struct sl_json_text *text, const struct sl_result_msg *result)
{
    if (result->http_status == 0) {
        put(text, "null");
        return;
    }
    put(text, "{\"status_code\":");
    sl_json_put_uint(text, result->http_status);
    put(text, ",\"request_id\":");
    put_string_or_null(text, result->request_id);
    put(text, ",\"body\":");
    if (result->body_is_json && result->body.len > 0) {
        sl_json_put_minified(text, result->body);
    } else {
        put_string_or_null(text, result->body);
    }
    put(text, "}");
}

static void put_error(struct sl_json_text *text, const struct sl_result_msg *result)
{
    if (result->state == SL_TASK_COMPLETED) {
        put(text, "null");
        return;
    }
    struct sl_span message =
        result->message.len > 0 ? result->message : sl_span_str(sl_err_meaning(result->err));
    put(text, "{\"code\":");
    sl_json_put_string(text, sl_span_str(sl_err_code(result->err)));
    put(text, ",\"message\":");
    sl_json_put_string(text, message);
    put(text, "}");
}

static void put_queue_part(struct sl_json_text *text, const struct sl_result_msg *result)
{
    put(text, "{\"state\":");
    sl_json_put_string(text, sl_span_str(sl_task_state_name(result->state)));
    put(text, ",\"provider\":");
    put_string_or_null(text, result->provider);
    put(text, ",\"attempts\":");
    sl_json_put_uint(text, result->attempts);
    put(text, ",\"cache\":\"miss\",\"queued_ms\":");
    sl_json_put_ms(text, result->queued_us / 1000.0);
    put(text, ",\"call_ms\":");
    sl_json_put_ms(text, result->call_us / 1000.0);
    put(text, ",\"stage\":");
    put_string_or_null(text, result->stage);
    put(text, ",\"service_id\":");
    put_string_or_null(text, result->service_id);
    put(text, "}");
}

void sl_output_put_result(struct sl_json_text *text, const struct sl_result_msg *result)
{
    char name[SL_TASK_NAME_BYTES];

    sl_task_name_format(result->task, name);
    put(text, "{\"id\":");
    sl_json_put_string(text, sl_span_str(name));
    put(text, ",\"custom_id\":");
    sl_json_put_string(text, result->custom_id);
    put(text, ",\"response\":");
    put_response(text, result);
    put(text, ",\"error\":");
    put_error(text, result);
    put(text, ",\"sluice\":");
    put_queue_part(text, result);
    put(text, "}\n");
}

/* ---- the file -------------------------------------------------------------------------------- */

enum sl_err sl_output_check(const char *path)
{
    if (path == NULL) {
        return fcntl(STDOUT_FILENO, F_GETFL) >= 0 ? SL_OK : SL_ERR_OUTPUT;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644);
    if (fd < 0) {
        /* A named pipe that nobody reads yet: open for writing will wait for the reader. */
        return errno == ENXIO ? SL_OK : SL_ERR_OUTPUT;
    }
    sl_os_close(&fd);
    return SL_OK;
}

enum sl_err sl_output_open(struct sl_output *output, const char *path)
{
    memset(output, 0, sizeof(*output));
    output->name = path != NULL ? path : "standard output";
    output->is_owned = path != NULL;
    output->fd =
        path != NULL ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : STDOUT_FILENO;
    return output->fd >= 0 ? SL_OK : SL_ERR_OUTPUT;
}

enum sl_err sl_output_flush(struct sl_output *output)
{
    if (output->text.len == 0) {
        return SL_OK;
    }
    enum sl_err err = sl_os_write_all(output->fd, output->text.buf, output->text.len, -1);

    output->text.len = 0;
    if (output->text.size_bytes > KEEP_BYTES) {
        sl_json_text_fini(&output->text);
        memset(&output->text, 0, sizeof(output->text));
    }
    return err == SL_OK ? SL_OK : SL_ERR_OUTPUT;
}

enum sl_err sl_output_add(struct sl_output *output, const struct sl_result_msg *result)
{
    sl_output_put_result(&output->text, result);
    if (output->text.is_failed) {
        return SL_ERR_NO_MEMORY;
    }
    output->lines++;
    return output->text.len >= WRITE_BYTES ? sl_output_flush(output) : SL_OK;
}

enum sl_err sl_output_close(struct sl_output *output)
{
    if (output->name == NULL) {
        return SL_OK;
    }
    enum sl_err err = sl_output_flush(output);

    sl_json_text_fini(&output->text);
    if (output->is_owned && output->fd >= 0 && close(output->fd) != 0 && errno != EINTR) {
        err = SL_ERR_OUTPUT;
    }
    memset(output, 0, sizeof(*output));
    return err;
}

bool sl_output_is_same_file(const char *path, int fd)
{
    struct stat a;
    struct stat b;

    if (path == NULL || fd < 0 || stat(path, &a) != 0 || fstat(fd, &b) != 0) {
        return false;
    }
    return S_ISREG(a.st_mode) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}
