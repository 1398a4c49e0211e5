/*
 * Finds test data outside of the tree. For test programs; reads the environment, opens nothing.
 * Tests run wherever the tree is, so data that is not there is a skipped test, said aloud, and not
 * a failed one.
 */
#include "tests/support/data.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PATH_BYTES 1024

const char *data_path(const char *name)
{
    static char path[PATH_BYTES];
    const char *folder = getenv("SLUICE_TEST_DATA");

    if (folder == NULL || folder[0] == '\0') {
        folder = SLUICE_SOURCE_DIR "/../shared/data";
    }
    int len = snprintf(path, sizeof(path), "%s/%s", folder, name);
    if (len < 0 || (size_t)len >= sizeof(path) || access(path, R_OK) != 0) {
        printf("skipped: no test data at %s (see SLUICE_TEST_DATA)\n", path);
        return NULL;
    }
    return path;
}
