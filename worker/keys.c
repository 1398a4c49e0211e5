/*
 * API keys: found, checked, handed over, wiped.
 *
 * Runs in a worker, never in its parent or in the broker. Never logs a key, its length or a part of
 * it. Keys live in the header lines of a provider (worker/provider) and, while a call is sent, in
 * libcurl's buffers; both are wiped or freed when the provider's settings are replaced.
 *
 * Order: api_key_file, api_key_env, $CREDENTIALS_DIRECTORY/<provider name>. A key that is named in
 * the configuration but not there is MISSING: calls fail with SL_ERR_KEY_MISSING and go out to
 * nobody. With no name at all and no credential, calls go out without a key.
 */
#include "worker/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/os.h"

static void refuse(struct sl_key *key, const char *where, const char *why)
{
    explicit_bzero(key->text, sizeof(key->text));
    key->state = SL_KEY_MISSING;
    snprintf(key->reason, sizeof(key->reason), "%s: %s", where, why);
}

/* A header is sent as it is: a line break in a key would start a header of its own. */
static void accept_text(struct sl_key *key, const char *where, size_t len)
{
    while (len > 0 && (key->text[len - 1] == '\n' || key->text[len - 1] == '\r')) {
        len--;
    }
    key->text[len] = '\0';
    if (len == 0) {
        refuse(key, where, "it is empty");
        return;
    }
    for (size_t i = 0; i < len; i++) {
        if (key->text[i] <= 0x20 || key->text[i] >= 0x7f) {
            refuse(key, where, "it holds a space, a line break or another byte no key has");
            return;
        }
    }
    key->state = SL_KEY_PRESENT;
}

static void warn_open_mode(int fd, const char *path)
{
    struct stat info;

    if (fstat(fd, &info) == 0 && (info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        sl_log(SL_EVENT_KEY_FILE_OPEN,
               "file=%s mode=%03o: others than its owner may use the key file; chmod 600 it", path,
               (unsigned)(info.st_mode & 0777));
    }
}

static void load_file(struct sl_key *key, const char *path, bool must_warn)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    size_t len = 0;
    ssize_t got = 1;

    if (fd < 0) {
        refuse(key, path, strerror(errno));
        return;
    }
    if (must_warn) {
        warn_open_mode(fd, path);
    }
    while (len < sizeof(key->text) && got > 0) {
        got = read(fd, key->text + len, sizeof(key->text) - len);
        len += got > 0 ? (size_t)got : 0;
    }
    const char *reason = strerror(errno);
    sl_os_close(&fd);
    if (got < 0) {
        refuse(key, path, reason);
    } else if (len == sizeof(key->text)) {
        refuse(key, path, "it is longer than any key");
    } else {
        accept_text(key, path, len);
    }
}

static void load_env(struct sl_key *key, const char *name)
{
    const char *value = getenv(name);

    if (value == NULL) {
        refuse(key, name, "the environment variable is not set");
    } else if (!sl_span_copy_str(key->text, sizeof(key->text), sl_span_str(value))) {
        refuse(key, name, "it is longer than any key");
    } else {
        accept_text(key, name, strlen(value));
    }
}

/* systemd's own directory is private to the service, so its mode needs no warning. */
static bool find_credential(const char *provider, char *path, size_t size)
{
    const char *dir = getenv("CREDENTIALS_DIRECTORY");

    if (dir == NULL || dir[0] != '/' || strchr(provider, '/') != NULL || provider[0] == '.') {
        return false;
    }
    int len = snprintf(path, size, "%s/%s", dir, provider);
    return len > 0 && (size_t)len < size && access(path, R_OK) == 0;
}

void sl_key_load(const struct sl_provider_config *provider, struct sl_key *out)
{
    char path[SL_PATH_BYTES_MAX];

    out->state = SL_KEY_NONE;
    out->text[0] = '\0';
    out->reason[0] = '\0';
    if (provider->api_key_file[0] != '\0') {
        load_file(out, provider->api_key_file, true);
    } else if (provider->api_key_env[0] != '\0') {
        load_env(out, provider->api_key_env);
    }
    if (out->state != SL_KEY_PRESENT && find_credential(provider->name, path, sizeof(path))) {
        load_file(out, path, false);
    }
}

void sl_key_wipe(struct sl_key *key)
{
    explicit_bzero(key, sizeof(*key));
}
