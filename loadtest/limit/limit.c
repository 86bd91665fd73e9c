/* Prints what a PKCS#11 module can do: so many threads, each on a session of its own, do nothing but sign one digest.
 *
 *   limit MODULE TOKEN KEY-LABEL PIN-FILE THREADS SECONDS
 *
 * One JSON object: signatures a second, CPU microseconds of this process a signature, and how long C_SignInit and C_Sign
 * took together. It signs as the service does: CKM_RSA_PKCS over a DigestInfo, the module initialised with OS locking.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { MOST_THREADS = 1024, MOST_SLOTS = 64, WARM_UP = 3 };

struct signer {
    pthread_t thread;
    CK_SESSION_HANDLE session;
    CK_OBJECT_HANDLE key;
    double *took_ms;
    size_t done, room;
};

static CK_FUNCTION_LIST *module;
static pthread_barrier_t ready;
static double seconds;
static struct signer signers[MOST_THREADS];

static void require(bool holds, const char *what, CK_RV rv)
{
    if (holds) return;
    fprintf(stderr, "limit: %s (%#lx)\n", what, rv);
    exit(1);
}

static void check(const char *what, CK_RV rv)
{
    require(rv == CKR_OK, what, rv);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_s(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec)
         + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    require(library, "the module cannot be loaded", 0);
    CK_C_GetFunctionList get_list = (CK_C_GetFunctionList)dlsym(library, "C_GetFunctionList");
    require(get_list, "the module has no C_GetFunctionList", 0);
    check("C_GetFunctionList", get_list(&module));
    check("C_Initialize", module->C_Initialize(&(CK_C_INITIALIZE_ARGS){.flags = CKF_OS_LOCKING_OK}));
}

static CK_SLOT_ID find_token(const char *label)
{
    CK_SLOT_ID slots[MOST_SLOTS];
    CK_ULONG count = MOST_SLOTS;
    check("C_GetSlotList", module->C_GetSlotList(CK_TRUE, slots, &count));
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        size_t size = strlen(label);
        if (module->C_GetTokenInfo(slots[i], &info) != CKR_OK || size > sizeof info.label) continue;
        bool same = !memcmp(info.label, label, size);
        for (size_t at = size; at < sizeof info.label; at++) same &= info.label[at] == ' ';
        if (same) return slots[i];
    }
    require(false, "there is no token with this label", 0);
    return 0;
}

static CK_SESSION_HANDLE open_session(CK_SLOT_ID slot)
{
    CK_SESSION_HANDLE session;
    check("C_OpenSession", module->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session));
    return session;
}

static void log_in(CK_SESSION_HANDLE session, const char *path)
{
    char pin[256] = "";
    FILE *file = fopen(path, "r");
    require(file && fgets(pin, sizeof pin, file), "the PIN file cannot be read", 0);
    fclose(file);
    check("C_Login", module->C_Login(session, CKU_USER, (CK_BYTE *)pin, strcspn(pin, "\n")));
}

static CK_OBJECT_HANDLE find_key(CK_SESSION_HANDLE session, char *label)
{
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &class, sizeof class}, {CKA_LABEL, label, strlen(label)}};
    CK_OBJECT_HANDLE key;
    CK_ULONG count;
    check("C_FindObjectsInit", module->C_FindObjectsInit(session, wanted, 2));
    check("C_FindObjects", module->C_FindObjects(session, &key, 1, &count));
    check("C_FindObjectsFinal", module->C_FindObjectsFinal(session));
    require(count == 1, "there is no private key with this label", 0);
    return key;
}

static void sign(const struct signer *self)
{
    static CK_BYTE info[51] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                               0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20};
    CK_BYTE signature[512];
    CK_ULONG size = sizeof signature;
    check("C_SignInit", module->C_SignInit(self->session, &(CK_MECHANISM){CKM_RSA_PKCS, NULL, 0}, self->key));
    check("C_Sign", module->C_Sign(self->session, info, sizeof info, signature, &size));
    require(size == 256, "the signature is not one of RSA-2048", size);
}

static void note(struct signer *self, double took_ms)
{
    if (self->done == self->room) {
        self->room = self->room ? 2 * self->room : 1 << 16;
        self->took_ms = realloc(self->took_ms, self->room * sizeof *self->took_ms);
        require(self->took_ms, "out of memory", 0);
    }
    self->took_ms[self->done++] = took_ms;
}

static void *run(void *argument)
{
    struct signer *self = argument;
    for (int i = 0; i < WARM_UP; i++) sign(self);
    pthread_barrier_wait(&ready);
    double began = now_s(), now = began;
    for (double end = began + seconds, ended; now < end; now = ended) {
        sign(self);
        ended = now_s();
        note(self, (ended - now) * 1e3);
    }
    return NULL;
}

static int compare(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static void print(int threads, double took_s, double used_s)
{
    size_t done = 0, at = 0;
    for (int i = 0; i < threads; i++) done += signers[i].done;
    double *all = malloc(done * sizeof *all), sum = 0;
    require(all && done, "nothing was signed", 0);
    for (int i = 0; i < threads; i++)
        for (size_t each = 0; each < signers[i].done; each++) sum += all[at++] = signers[i].took_ms[each];
    qsort(all, done, sizeof *all, compare);
    printf("{\"threads\": %d, \"signatures\": %zu, \"seconds\": %.3f, \"rate\": %.1f, \"cpu_us\": %.2f, ", threads, done,
           took_s, (double)done / took_s, used_s / (double)done * 1e6);
    printf("\"mean_ms\": %.4f, \"p50_ms\": %.4f, \"p99_ms\": %.4f, \"p999_ms\": %.4f}\n", sum / (double)done,
           all[done / 2], all[done * 99 / 100], all[done * 999 / 1000]);
}

int main(int count, char **word)
{
    require(count == 7, "usage: limit MODULE TOKEN KEY-LABEL PIN-FILE THREADS SECONDS", 0);
    int threads = atoi(word[5]);
    seconds = atof(word[6]);
    require(threads > 0 && threads <= MOST_THREADS && seconds > 0, "no such number of threads or seconds", 0);
    load(word[1]);
    CK_SLOT_ID slot = find_token(word[2]);
    log_in(open_session(slot), word[4]);
    pthread_barrier_init(&ready, NULL, (unsigned)threads + 1);
    for (int i = 0; i < threads; i++) {
        signers[i].session = open_session(slot);
        signers[i].key = find_key(signers[i].session, word[3]);
        require(!pthread_create(&signers[i].thread, NULL, run, &signers[i]), "a thread cannot be made", 0);
    }
    pthread_barrier_wait(&ready);
    double began = now_s(), used = cpu_s();
    for (int i = 0; i < threads; i++) pthread_join(signers[i].thread, NULL);
    print(threads, now_s() - began, cpu_s() - used);
    check("C_Finalize", module->C_Finalize(NULL));
    return 0;
}
