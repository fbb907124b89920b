/* `millrace version`: what this binary is made of. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <archive.h>
#include <bzlib.h>
#include <curl/curl.h>
#include <lzma.h>
#include <openssl/crypto.h>
#include <pcre2.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>
#include <xxhash.h>
#include <yaml.h>
#include <zlib.h>
#include <zmq.h>
#include <zstd.h>

#include <protobuf-c/protobuf-c.h>

#include "base/err.h"
#include "base/version.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/output.h"
#include "model/gpt2/gpt2.h"
#include "model/kernels/product.h"

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

static json_t *libraries(void) {
    json_t *object = json_object();
    unsigned xxh = XXH_versionNumber(), archive = (unsigned)archive_version_number();
    int zmq[3];
    char pcre2[64] = "";
    zmq_version(&zmq[0], &zmq[1], &zmq[2]);
    pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
    pcre2[strcspn(pcre2, " ")] = 0; /* its date follows */
    json_object_set_new(object, "ZeroMQ", json_sprintf("%d.%d.%d", zmq[0], zmq[1], zmq[2]));
    json_object_set_new(object, "zstd", json_string(ZSTD_versionString()));
    json_object_set_new(object, "protobuf-c", json_string(protobuf_c_version()));
    json_object_set_new(object, "jansson", json_string(jansson_version_str()));
    json_object_set_new(object, "xxhash", json_sprintf("%u.%u.%u", xxh / 10000, xxh / 100 % 100, xxh % 100));
    json_object_set_new(object, "libcrypto", json_string(OpenSSL_version(OPENSSL_VERSION)));
    json_object_set_new(object, "SQLite", json_string(sqlite3_libversion()));
    json_object_set_new(object, "libyaml", json_string(yaml_get_version_string()));
    json_object_set_new(object, "libarchive", json_sprintf("%u.%u.%u", archive / 1000000, archive / 1000 % 1000, archive % 1000));
    json_object_set_new(object, "zlib", json_string(zlibVersion()));
    json_object_set_new(object, "liblzma", json_string(lzma_version_string()));
    json_object_set_new(object, "libbz2", json_sprintf("%.*s", (int)strcspn(BZ2_bzlibVersion(), ","), BZ2_bzlibVersion()));
    json_object_set_new(object, "libcurl", json_string(curl_version_info(CURLVERSION_NOW)->version));
    json_object_set_new(object, "utf8proc", json_string(utf8proc_version()));
    json_object_set_new(object, "PCRE2", json_string(pcre2));
    return object;
}

static json_t *build(void) {
#if defined __x86_64__
    const char *machine = "x86-64";
#elif defined __aarch64__
    const char *machine = "aarch64";
#else
    const char *machine = sizeof(void *) == 8 ? "of 64 bits" : "of 32 bits";
#endif
    json_t *object = json_object();
    json_object_set_new(object, "compiler", json_string(COMPILER));
#ifdef MILLRACE_COMMIT
    json_object_set_new(object, "commit", json_string(MILLRACE_COMMIT));
#endif
#ifdef __OPTIMIZE__
    json_object_set_new(object, "optimized", json_true());
#else
    json_object_set_new(object, "optimized", json_false());
#endif
#ifdef __SANITIZE_ADDRESS__
    json_object_set_new(object, "sanitizer", json_string("address"));
#endif
    json_object_set_new(object, "machine", json_string(machine));
    return object;
}

static void print_object(const char *title, const json_t *object) {
    const char *key;
    json_t *value;
    printf("%s:", title);
    json_object_foreach((json_t *)object, key, value) {
        if (json_is_string(value)) printf(" %s %s;", key, json_string_value(value));
    }
    printf("\n");
}

int cmd_version(int argc, char **argv) {
    bool json = false;
    const struct option_spec options[] = {OPTION_JSON(&json), {0}};
    static const struct usage usage = {
        "version", "[OPTIONS]", "Version, build, libraries and the kernels that this machine runs.", "millrace version --json", 0, 0};
    char **arguments, kernels[128];
    int count, code = options_parse(&arguments, &count, &usage, options, argc, argv);
    if (code != 0) return code;
    if (kernels_setup(kernels) < 0) snprintf(kernels, sizeof kernels, "none: %.110s", err_text());
    json_t *object = json_object();
    json_object_set_new(object, "version", json_string(MILLRACE_VERSION));
    json_object_set_new(object, "build", build());
    json_object_set_new(object, "libraries", libraries());
    json_object_set_new(object, "kernels", json_string(kernels));
    if (json) return output_json(object);
    printf("millrace %s\n", MILLRACE_VERSION);
    print_object("build", json_object_get(object, "build"));
    print_object("libraries", json_object_get(object, "libraries"));
    printf("kernels: %s\n", kernels);
    json_decref(object);
    return 0;
}
