/* A PKCS#11 2.40 module that wraps a real one, and changes what it is told to change while the process runs.
 *
 * Environment: SIGNER_SHIM_MODULE   the real module (required)
 *              SIGNER_SHIM_SOCKET   a directory; each process serves <directory>/<pid>.sock, and first runs the
 *                                   commands in <directory>/startup. Without it nobody can tell the shim anything.
 *              SIGNER_SHIM_PRESET   cloudhsm: what AWS CloudHSM does and SoftHSM does not (a private key of either
 *                                   does not tell its MODULUS_BITS)
 *              SIGNER_SHIM_LATENCY  0: the preset signs without its 5-10 ms
 *              SIGNER_SHIM_THROTTLE signatures a second beyond which the preset throttles; 0: never; else 1000
 *
 * One command a connection: words separated by tabs, a line end, answered by one JSON object (see `commands`).
 *
 * `gate` is held shared around every call of the real module, and alone by whoever pulls sessions or the login from
 * under the others: real modules do not survive that in the middle of a call. `lock` guards all else that is not
 * atomic. Order: gate, then lock. A call that hangs or sleeps here holds neither.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <p11-kit/pkcs11.h>
#include <pthread.h>
#include <search.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

typedef CK_SESSION_HANDLE SESSION;
typedef CK_OBJECT_HANDLE OBJECT;
typedef CK_MECHANISM *MECHANISM;
typedef CK_ATTRIBUTE *TEMPLATE;
typedef CK_BYTE *BYTES;
typedef CK_ULONG SIZE;

/* Every function of PKCS#11 2.40. PASS goes on as it came, but for handles of objects (see `shift`); so does MAKE, which
 * also gives out the handle `made`; OWN is written out below. */
#define FUNCTIONS(PASS, MAKE, OWN) \
    OWN(C_Initialize) OWN(C_Finalize) OWN(C_GetFunctionList) \
    PASS(C_GetInfo, (CK_INFO *info), (info)) \
    PASS(C_GetSlotList, (CK_BBOOL present, CK_SLOT_ID *slots, SIZE *n), (present, slots, n)) \
    PASS(C_GetSlotInfo, (CK_SLOT_ID slot, CK_SLOT_INFO *info), (slot, info)) \
    PASS(C_GetTokenInfo, (CK_SLOT_ID slot, CK_TOKEN_INFO *info), (slot, info)) \
    PASS(C_WaitForSlotEvent, (CK_FLAGS flags, CK_SLOT_ID *slot, void *none), (flags, slot, none)) \
    PASS(C_GetMechanismList, (CK_SLOT_ID slot, CK_MECHANISM_TYPE *list, SIZE *n), (slot, list, n)) \
    PASS(C_GetMechanismInfo, (CK_SLOT_ID slot, CK_MECHANISM_TYPE m, CK_MECHANISM_INFO *info), (slot, m, info)) \
    PASS(C_InitToken, (CK_SLOT_ID slot, BYTES pin, SIZE n, BYTES label), (slot, pin, n, label)) \
    PASS(C_InitPIN, (SESSION s, BYTES pin, SIZE n), (s, pin, n)) \
    PASS(C_SetPIN, (SESSION s, BYTES old, SIZE n, BYTES pin, SIZE m), (s, old, n, pin, m)) \
    OWN(C_OpenSession) OWN(C_CloseSession) OWN(C_CloseAllSessions) OWN(C_Login) \
    PASS(C_GetSessionInfo, (SESSION s, CK_SESSION_INFO *info), (s, info)) \
    PASS(C_GetOperationState, (SESSION s, BYTES state, SIZE *n), (s, state, n)) \
    PASS(C_SetOperationState, (SESSION s, BYTES state, SIZE n, OBJECT a, OBJECT b), \
         (s, state, n, a - shift(s), b - shift(s))) \
    PASS(C_Logout, (SESSION s), (s)) \
    OWN(C_CreateObject) OWN(C_GetAttributeValue) OWN(C_FindObjects) OWN(C_GenerateKeyPair) OWN(C_SignInit) OWN(C_Sign) \
    MAKE(C_CopyObject, (SESSION s, OBJECT object, TEMPLATE t, SIZE n, OBJECT *made), (s, object - shift(s), t, n, made)) \
    PASS(C_DestroyObject, (SESSION s, OBJECT object), (s, object - shift(s))) \
    PASS(C_GetObjectSize, (SESSION s, OBJECT object, SIZE *size), (s, object - shift(s), size)) \
    PASS(C_SetAttributeValue, (SESSION s, OBJECT object, TEMPLATE t, SIZE n), (s, object - shift(s), t, n)) \
    PASS(C_FindObjectsInit, (SESSION s, TEMPLATE t, SIZE n), (s, t, n)) \
    PASS(C_FindObjectsFinal, (SESSION s), (s)) \
    PASS(C_EncryptInit, (SESSION s, MECHANISM m, OBJECT key), (s, m, key - shift(s))) \
    PASS(C_Encrypt, (SESSION s, BYTES in, SIZE n, BYTES out, SIZE *m), (s, in, n, out, m)) \
    PASS(C_EncryptUpdate, (SESSION s, BYTES in, SIZE n, BYTES out, SIZE *m), (s, in, n, out, m)) \
    PASS(C_EncryptFinal, (SESSION s, BYTES out, SIZE *n), (s, out, n)) \
    PASS(C_DecryptInit, (SESSION s, MECHANISM m, OBJECT key), (s, m, key - shift(s))) \
    PASS(C_Decrypt, (SESSION s, BYTES in, SIZE n, BYTES out, SIZE *m), (s, in, n, out, m)) \
    PASS(C_DecryptUpdate, (SESSION s, BYTES in, SIZE n, BYTES out, SIZE *m), (s, in, n, out, m)) \
    PASS(C_DecryptFinal, (SESSION s, BYTES out, SIZE *n), (s, out, n)) \
    PASS(C_DigestInit, (SESSION s, MECHANISM m), (s, m)) \
    PASS(C_Digest, (SESSION s, BYTES in, SIZE n, BYTES out, SIZE *m), (s, in, n, out, m)) \
    PASS(C_DigestUpdate, (SESSION s, BYTES in, SIZE n), (s, in, n)) \
    PASS(C_DigestKey, (SESSION s, OBJECT key), (s, key - shift(s))) \
    PASS(C_DigestFinal, (SESSION s, BYTES out, SIZE *n), (s, out, n)) \
    PASS(C_SignUpdate, (SESSION s, BYTES in, SIZE n), (s, in, n)) \
    PASS(C_SignFinal, (SESSION s, BYTES out, SIZE *n), (s, out, n)) \
    PASS(C_SignRecoverInit, (SESSION s, MECHANISM m, OBJECT key), (s, m, key - shift(s))) \
    PASS(C_SignRecover, (SESSION s, BYTES in, SIZE n, BYTES out, SIZE *m), (s, in, n, out, m)) \
    PASS(C_VerifyInit, (SESSION s, MECHANISM m, OBJECT key), (s, m, key - shift(s))) \
    PASS(C_Verify, (SESSION s, BYTES in, SIZE n, BYTES signature, SIZE m), (s, in, n, signature, m)) \
    PASS(C_VerifyUpdate, (SESSION s, BYTES in, SIZE n), (s, in, n)) \
    PASS(C_VerifyFinal, (SESSION s, BYTES signature, SIZE n), (s, signature, n)) \
    PASS(C_VerifyRecoverInit, (SESSION s, MECHANISM m, OBJECT key), (s, m, key - shift(s))) \
    PASS(C_VerifyRecover, (SESSION s, BYTES in, SIZE n, BYTES out, SIZE *m), (s, in, n, out, m)) \
    PASS(C_DigestEncryptUpdate, (SESSION s, BYTES in, SIZE n, BYTES out, SIZE *m), (s, in, n, out, m)) \
    PASS(C_DecryptDigestUpdate, (SESSION s, BYTES in, SIZE n, BYTES out, SIZE *m), (s, in, n, out, m)) \
    PASS(C_SignEncryptUpdate, (SESSION s, BYTES in, SIZE n, BYTES out, SIZE *m), (s, in, n, out, m)) \
    PASS(C_DecryptVerifyUpdate, (SESSION s, BYTES in, SIZE n, BYTES out, SIZE *m), (s, in, n, out, m)) \
    MAKE(C_GenerateKey, (SESSION s, MECHANISM m, TEMPLATE t, SIZE n, OBJECT *made), (s, m, t, n, made)) \
    PASS(C_WrapKey, (SESSION s, MECHANISM m, OBJECT with, OBJECT key, BYTES out, SIZE *n), \
         (s, m, with - shift(s), key - shift(s), out, n)) \
    MAKE(C_UnwrapKey, (SESSION s, MECHANISM m, OBJECT key, BYTES in, SIZE size, TEMPLATE t, SIZE n, OBJECT *made), \
         (s, m, key - shift(s), in, size, t, n, made)) \
    MAKE(C_DeriveKey, (SESSION s, MECHANISM m, OBJECT key, TEMPLATE t, SIZE n, OBJECT *made), \
         (s, m, key - shift(s), t, n, made)) \
    PASS(C_SeedRandom, (SESSION s, BYTES seed, SIZE n), (s, seed, n)) \
    PASS(C_GenerateRandom, (SESSION s, BYTES out, SIZE n), (s, out, n)) \
    PASS(C_GetFunctionStatus, (SESSION s), (s)) \
    PASS(C_CancelFunction, (SESSION s), (s))

/* SIZE_QUERY is C_Sign without a place for the signature; for everybody here it is a function of its own. */
#define NUMBER(name, ...) F_##name,
enum { FUNCTIONS(NUMBER, NUMBER, NUMBER) SIZE_QUERY, FUNCTION_COUNT };

/* What is counted of a function, and what it was told to do. */
struct function {
    _Alignas(64) const char *name;
    atomic_ulong calls, in_flight, max_in_flight;
    atomic_bool ruled; /* all that a call looks at while nothing is asked of its function */
    enum { NO_DELAY, FIXED, UNIFORM, LOGNORMAL } delay;
    double low_ms, high_ms; /* of a lognormal delay: its 5th and 95th percentile */
    CK_RV answer;
    long answers_left, hangs_left; /* -1: without end */
    double probability;
    unsigned long releases;
    int signal;
    long signal_in; /* calls until the signal, that one included */
    unsigned long hung, answered, delayed;
    double delay_sum_ms, delay_min_ms, delay_max_ms;
    atomic_ulong cpu_ns; /* of the threads that called, in the shim and in the real module */
};

#define NAME(name, ...) [F_##name] = {#name, .ruled = false},
static struct function functions[FUNCTION_COUNT] = {
    FUNCTIONS(NAME, NAME, NAME)[SIZE_QUERY] = {"C_Sign:size", .ruled = false},
};

/* The signature under way on a session, where replaying keeps C_SignInit back until it is known to be needed. */
struct signing {
    bool kept_back;
    OBJECT key;
    CK_MECHANISM mechanism;
    CK_BYTE parameter[64];
};

struct session {
    struct session *next;
    SESSION handle;
    CK_SLOT_ID slot;
    unsigned long number; /* how many were opened up to it */
    struct signing signing;
};

/* A signature that was made; `id` stands for key, mechanism and digest. */
struct replay {
    uint64_t id;
    SIZE size;
    CK_BYTE signature[];
};

enum { BUCKETS = 256, MOST_WRONG_PINS = 5, CLOUDHSM_SESSIONS = 1024 };

static CK_FUNCTION_LIST *real;
static pthread_rwlock_t gate = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, starting = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static atomic_bool started, cloudhsm, replaying;
static atomic_int device; /* of: */
enum { PRESENT, AWAY, STALE /* back, but C_Initialize is needed */ };
static CK_RV away_answer;
static double away_until_s;
static bool stale_afterwards, slow; /* slow: the preset with its latency */
static struct session *sessions[BUCKETS];
static unsigned long session_count, max_session_count, session_number, session_cap;
static enum { RIGHT, FLIPPED, TRUNCATED, OTHER_KEY } signature_fault;
static long wrong_signatures_left;
static char other_label[256];
static double throttle_per_s, preset_throttle_per_s, throttle_tokens, throttled_at_s;
static void *replays; /* the tree of them, by tsearch */
static unsigned long wrong_pins, wrong_pins_in_a_row, busy_at_finalize;
static const char *directory;
static char *first_preset[3]; /* name, latency, throttling */
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static int listener = -1;
static pid_t serving_pid;
static FILE *reply; /* to the command that runs; under `lock` */

static void start(void);

static pthread_mutex_t *take_lock(void)
{
    pthread_mutex_lock(&lock);
    return &lock;
}

static void drop_lock(pthread_mutex_t **held)
{
    pthread_mutex_unlock(*held);
}

/* Holds `lock` to the end of the block. */
#define HOLD_LOCK __attribute__((cleanup(drop_lock), unused)) pthread_mutex_t *held = take_lock()

/* What the calling thread has used so far. */
static unsigned long thread_cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (unsigned long)t.tv_sec * 1000000000 + (unsigned long)t.tv_nsec;
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* --- rules: delay, answer, hang, crash --- */

/* Between 0 and 1, neither included (splitmix64). The caller holds `lock`. */
static double random_fraction(void)
{
    static uint64_t state;
    if (!state) state = (uint64_t)(now_s() * 1e9) ^ (uint64_t)getpid() << 32;
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return ((double)((z ^ z >> 31) >> 11) + 0.5) / 9007199254740992.0;
}

static double random_delay_ms(const struct function *fn)
{
    if (fn->delay == FIXED) return fn->low_ms;
    if (fn->delay == UNIFORM) return fn->low_ms + (fn->high_ms - fn->low_ms) * random_fraction();
    double normal = sqrt(-2 * log(random_fraction())) * cos(2 * M_PI * random_fraction());
    double low = log(fn->low_ms), high = log(fn->high_ms);
    return exp((low + high) / 2 + normal * (high - low) / (2 * 1.6448536)); /* the normal's 95th percentile */
}

static double next_delay_ms(struct function *fn)
{
    if (fn->delay == NO_DELAY) return 0;
    double ms = random_delay_ms(fn);
    fn->delay_min_ms = fn->delayed ? fmin(fn->delay_min_ms, ms) : ms;
    fn->delay_max_ms = fmax(fn->delay_max_ms, ms);
    fn->delay_sum_ms += ms;
    fn->delayed++;
    return ms;
}

static CK_RV next_answer(struct function *fn)
{
    if (fn->answers_left == 0 || random_fraction() > fn->probability) return CKR_OK;
    if (fn->answers_left > 0) fn->answers_left--;
    fn->answered++;
    return fn->answer;
}

static void hang(struct function *fn)
{
    if (fn->hangs_left > 0) fn->hangs_left--;
    fn->hung++;
    for (unsigned long seen = fn->releases; fn->releases == seen;) pthread_cond_wait(&released, &lock);
    fn->hung--;
}

static void release(struct function *fn)
{
    fn->hangs_left = 0;
    fn->releases++;
    pthread_cond_broadcast(&released);
}

static void refresh(struct function *fn)
{
    atomic_store(&fn->ruled, fn->delay || fn->answers_left || fn->hangs_left || fn->signal_in);
}

static void sleep_ms(double ms)
{
    double seconds = floor(ms / 1e3);
    struct timespec left = {(time_t)seconds, (long)((ms / 1e3 - seconds) * 1e9)};
    while (nanosleep(&left, &left) && errno == EINTR) continue;
}

/* Does to this call what was asked; gives CKR_OK if it may go on. */
static CK_RV obey(struct function *fn)
{
    pthread_mutex_lock(&lock);
    if (fn->hangs_left) hang(fn);
    double delay_ms = next_delay_ms(fn);
    CK_RV answer = next_answer(fn);
    int fatal = fn->signal_in > 0 && --fn->signal_in == 0 ? fn->signal : 0;
    refresh(fn);
    pthread_mutex_unlock(&lock);
    if (delay_ms > 0) sleep_ms(delay_ms);
    if (fatal) raise(fatal);
    return answer;
}

/* What to answer for a device that is not there. The caller is past the gate. */
static CK_RV ask_device(const struct function *fn)
{
    if (device == PRESENT || fn == &functions[F_C_Finalize] || fn == &functions[F_C_GetFunctionList]) return CKR_OK;
    HOLD_LOCK;
    if (device == AWAY && now_s() >= away_until_s) device = stale_afterwards ? STALE : PRESENT;
    if (device == STALE && fn == &functions[F_C_Initialize]) return CKR_OK;
    return device == PRESENT ? CKR_OK : away_answer;
}

/* --- around every call --- */

static _Thread_local unsigned long entered_cpu_ns;

static CK_RV enter(struct function *fn)
{
    if (!atomic_load_explicit(&started, memory_order_acquire)) start();
    entered_cpu_ns = thread_cpu_ns();
    atomic_fetch_add(&fn->calls, 1);
    unsigned long now = atomic_fetch_add(&fn->in_flight, 1) + 1, most = atomic_load(&fn->max_in_flight);
    while (now > most && !atomic_compare_exchange_weak(&fn->max_in_flight, &most, now)) continue;
    CK_RV rv = real ? CKR_OK : CKR_GENERAL_ERROR;
    if (rv == CKR_OK && atomic_load(&fn->ruled)) rv = obey(fn);
    if (fn == &functions[F_C_Initialize] || fn == &functions[F_C_Finalize]) pthread_rwlock_wrlock(&gate);
    else pthread_rwlock_rdlock(&gate);
    return rv == CKR_OK ? ask_device(fn) : rv;
}

static CK_RV leave(struct function *fn, CK_RV rv)
{
    pthread_rwlock_unlock(&gate);
    atomic_fetch_add(&fn->cpu_ns, thread_cpu_ns() - entered_cpu_ns);
    atomic_fetch_sub(&fn->in_flight, 1);
    return rv;
}

#define ENTER(number) \
    struct function *const fn = &functions[number]; \
    CK_RV rv = enter(fn)

/* --- sessions --- */

static struct session *find_session(SESSION handle)
{
    struct session *s = sessions[handle % BUCKETS];
    while (s && s->handle != handle) s = s->next;
    return s;
}

/* Counts the session before it exists: so threads that come at once do not get past the cap. */
static CK_RV reserve_session(void)
{
    HOLD_LOCK;
    if (session_cap && session_count >= session_cap) return CKR_SESSION_COUNT;
    if (++session_count > max_session_count) max_session_count = session_count;
    return CKR_OK;
}

static void keep_session(CK_RV rv, CK_SLOT_ID slot, const SESSION *handle)
{
    HOLD_LOCK;
    struct session *s = rv == CKR_OK ? malloc(sizeof *s) : NULL;
    if (!s) {
        session_count--;
        return;
    }
    *s = (struct session){sessions[*handle % BUCKETS], *handle, slot, ++session_number, {0}};
    sessions[*handle % BUCKETS] = s;
}

/* Those of one slot, the one with this handle, or all. The caller holds `lock`. */
static void forget_sessions(const CK_SLOT_ID *slot, const SESSION *handle)
{
    for (struct session **bucket = sessions; bucket < sessions + BUCKETS; bucket++) {
        for (struct session **place = bucket, *s; (s = *place);) {
            if ((slot && s->slot != *slot) || (handle && s->handle != *handle)) {
                place = &s->next;
                continue;
            }
            *place = s->next;
            free(s);
            session_count--;
        }
    }
}

/* Under the preset every session numbers the objects in its own way, the real number plus its own: so a handle that is
 * used on another session is nobody's, or another object's, and never by chance the right one. */
static OBJECT shift(SESSION session)
{
    if (!atomic_load(&cloudhsm)) return 0;
    HOLD_LOCK;
    const struct session *s = find_session(session);
    return s ? s->number : 0;
}

CK_RV C_OpenSession(CK_SLOT_ID slot, CK_FLAGS flags, void *application, CK_NOTIFY notify, SESSION *session)
{
    ENTER(F_C_OpenSession);
    if (rv == CKR_OK && atomic_load(&cloudhsm) && !(flags & CKF_RW_SESSION)) rv = CKR_FUNCTION_FAILED;
    if (rv == CKR_OK) rv = reserve_session();
    if (rv != CKR_OK) return leave(fn, rv);
    rv = real->C_OpenSession(slot, flags, application, notify, session);
    keep_session(rv, slot, session);
    return leave(fn, rv);
}

CK_RV C_CloseSession(SESSION session)
{
    ENTER(F_C_CloseSession);
    if (rv == CKR_OK) rv = real->C_CloseSession(session);
    if (rv != CKR_OK) return leave(fn, rv);
    HOLD_LOCK;
    forget_sessions(NULL, &session);
    return leave(fn, rv);
}

CK_RV C_CloseAllSessions(CK_SLOT_ID slot)
{
    ENTER(F_C_CloseAllSessions);
    if (rv == CKR_OK) rv = real->C_CloseAllSessions(slot);
    if (rv != CKR_OK) return leave(fn, rv);
    HOLD_LOCK;
    forget_sessions(&slot, NULL);
    return leave(fn, rv);
}

/* --- the module's life, and its login --- */

static void forget_replays(void)
{
    tdestroy(replays, free);
    replays = NULL;
}

CK_RV C_Initialize(void *arguments)
{
    ENTER(F_C_Initialize);
    if (rv == CKR_OK) rv = real->C_Initialize(arguments);
    if (rv == CKR_OK && device == STALE) device = PRESENT;
    return leave(fn, rv);
}

CK_RV C_Finalize(void *reserved)
{
    unsigned long busy = 0;
    for (size_t i = 0; i < FUNCTION_COUNT; i++) busy += atomic_load(&functions[i].in_flight);
    ENTER(F_C_Finalize);
    if (rv == CKR_OK) rv = real->C_Finalize(reserved);
    HOLD_LOCK;
    if (busy > busy_at_finalize) busy_at_finalize = busy;
    if (rv == CKR_OK) {
        forget_sessions(NULL, NULL);
        forget_replays(); /* they go by handles, and the real module may give the same ones to other keys */
    }
    return leave(fn, rv);
}

/* Gives how many wrong PINs in a row a slot has seen, with `more` added. The lock on a user is the HSM's, not a
 * process's: where there is a directory, they are the bytes of a file that all processes share. */
static unsigned long count_wrong_pins(CK_SLOT_ID slot, unsigned more, bool forget)
{
    char path[4096];
    wrong_pins_in_a_row = more + (forget ? 0 : wrong_pins_in_a_row);
    if (!directory || snprintf(path, sizeof path, "%s/wrong-pins-%lx", directory, slot) >= (int)sizeof path)
        return wrong_pins_in_a_row;
    if (forget) unlink(path);
    FILE *file = more ? fopen(path, "a") : NULL;
    for (; file && more; more--) fputc('x', file);
    if (file) fclose(file);
    struct stat status;
    return stat(path, &status) ? 0 : (unsigned long)status.st_size;
}

static CK_RV log_in_to_cloudhsm(SESSION session, BYTES pin, SIZE size)
{
    HOLD_LOCK;
    const struct session *s = find_session(session);
    CK_SLOT_ID slot = s ? s->slot : 0;
    if (count_wrong_pins(slot, 0, false) >= MOST_WRONG_PINS) return CKR_PIN_LOCKED;
    /* Without a user's name it is nobody's PIN: it does not count against a user. */
    if (!pin || !memchr(pin, ':', size)) return CKR_PIN_INCORRECT;
    CK_RV rv = real->C_Login(session, CKU_USER, pin, size);
    if (rv == CKR_PIN_INCORRECT || rv == CKR_OK) count_wrong_pins(slot, rv != CKR_OK, rv == CKR_OK);
    return rv;
}

CK_RV C_Login(SESSION session, CK_USER_TYPE user, BYTES pin, SIZE size)
{
    ENTER(F_C_Login);
    if (rv == CKR_OK && atomic_load(&cloudhsm) && user == CKU_USER) rv = log_in_to_cloudhsm(session, pin, size);
    else if (rv == CKR_OK) rv = real->C_Login(session, user, pin, size);
    HOLD_LOCK;
    wrong_pins += rv == CKR_PIN_INCORRECT;
    return leave(fn, rv);
}

/* --- objects --- */

static const CK_ATTRIBUTE *find_attribute(CK_ATTRIBUTE_TYPE type, const CK_ATTRIBUTE *given, SIZE count)
{
    for (; count; count--, given++)
        if (given->type == type) return given;
    return NULL;
}

/* Copies a template, which has room for one attribute more: under the preset a key is extractable unless it says no. */
static SIZE say_extractable(TEMPLATE copy, const CK_ATTRIBUTE *given, SIZE count)
{
    static CK_BBOOL yes = 1;
    bool said = !atomic_load(&cloudhsm) || find_attribute(CKA_EXTRACTABLE, given, count);
    for (SIZE i = 0; i < count; i++) copy[i] = given[i];
    if (!said) copy[count++] = (CK_ATTRIBUTE){CKA_EXTRACTABLE, &yes, sizeof yes};
    return count;
}

CK_RV C_CreateObject(SESSION session, TEMPLATE given, SIZE count, OBJECT *made)
{
    ENTER(F_C_CreateObject);
    if (rv != CKR_OK) return leave(fn, rv);
    CK_ATTRIBUTE template[count + 1];
    const CK_ATTRIBUTE *class = find_attribute(CKA_CLASS, given, count);
    CK_OBJECT_CLASS value = class && class->pValue ? *(CK_OBJECT_CLASS *)class->pValue : CKO_DATA;
    if (value == CKO_PRIVATE_KEY || value == CKO_SECRET_KEY) {
        count = say_extractable(template, given, count);
        given = template;
    }
    rv = real->C_CreateObject(session, given, count, made);
    if (rv == CKR_OK) *made += shift(session);
    return leave(fn, rv);
}

CK_RV C_GenerateKeyPair(SESSION session, MECHANISM mechanism, TEMPLATE public, SIZE n, TEMPLATE given, SIZE count,
                        OBJECT *public_key, OBJECT *private_key)
{
    ENTER(F_C_GenerateKeyPair);
    if (rv != CKR_OK) return leave(fn, rv);
    CK_ATTRIBUTE private[count + 1];
    count = say_extractable(private, given, count);
    rv = real->C_GenerateKeyPair(session, mechanism, public, n, private, count, public_key, private_key);
    if (rv != CKR_OK) return leave(fn, rv);
    *public_key += shift(session);
    *private_key += shift(session);
    return leave(fn, rv);
}

CK_RV C_FindObjects(SESSION session, OBJECT *found, SIZE most, SIZE *count)
{
    ENTER(F_C_FindObjects);
    if (rv == CKR_OK) rv = real->C_FindObjects(session, found, most, count);
    for (SIZE i = 0; rv == CKR_OK && i < *count; i++) found[i] += shift(session);
    return leave(fn, rv);
}

/* Takes tokens from a bucket that fills at `throttle_per_s` and holds a tenth of a second's worth, but at least one;
 * tells whether there is less than one. */
static bool throttled(double tokens)
{
    HOLD_LOCK;
    if (throttle_per_s <= 0) return false;
    double now = now_s(), most = fmax(1, throttle_per_s / 10);
    throttle_tokens = fmin(most, throttle_tokens + (now - throttled_at_s) * throttle_per_s);
    throttled_at_s = now;
    if (throttle_tokens < 1) return true;
    throttle_tokens -= tokens;
    return false;
}

CK_RV C_GetAttributeValue(SESSION session, OBJECT object, TEMPLATE template, SIZE count)
{
    ENTER(F_C_GetAttributeValue);
    if (rv == CKR_OK && throttled(0)) rv = CKR_DEVICE_ERROR;
    if (rv == CKR_OK) rv = real->C_GetAttributeValue(session, object - shift(session), template, count);
    return leave(fn, rv);
}

/* --- signing --- */

/* Tells whether this signature is to have that fault, and counts it. */
static bool spoils(int fault)
{
    HOLD_LOCK;
    if (signature_fault != (unsigned)fault || wrong_signatures_left == 0) return false;
    if (wrong_signatures_left > 0) wrong_signatures_left--;
    return true;
}

static CK_RV find_other_key(SESSION session, OBJECT *key)
{
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof class}, {CKA_LABEL, other_label, strlen(other_label)}};
    SIZE count = 0;
    CK_RV rv = real->C_FindObjectsInit(session, template, 2);
    if (rv == CKR_OK) rv = real->C_FindObjects(session, key, 1, &count);
    if (rv == CKR_OK) rv = real->C_FindObjectsFinal(session);
    return rv == CKR_OK && count == 0 ? CKR_KEY_HANDLE_INVALID : rv;
}

static struct signing signing_of(SESSION session)
{
    HOLD_LOCK;
    const struct session *s = find_session(session);
    return s ? s->signing : (struct signing){0};
}

static CK_RV set_signing(SESSION session, struct signing signing)
{
    HOLD_LOCK;
    struct session *s = find_session(session);
    if (s) s->signing = signing;
    return s ? CKR_OK : CKR_SESSION_HANDLE_INVALID;
}

static CK_RV begin_signing(SESSION session, MECHANISM mechanism, OBJECT key)
{
    struct signing signing = {true, key, {0}, {0}};
    if (atomic_load(&replaying) && mechanism && mechanism->ulParameterLen <= sizeof signing.parameter) {
        signing.mechanism = *mechanism;
        if (mechanism->ulParameterLen) memcpy(signing.parameter, mechanism->pParameter, mechanism->ulParameterLen);
        return set_signing(session, signing);
    }
    CK_RV rv = real->C_SignInit(session, mechanism, key);
    if (rv == CKR_OK) set_signing(session, (struct signing){0});
    /* SoftHSM says OBJECT where the specification and others say KEY. */
    return rv == CKR_OBJECT_HANDLE_INVALID && atomic_load(&cloudhsm) ? CKR_KEY_HANDLE_INVALID : rv;
}

CK_RV C_SignInit(SESSION session, MECHANISM mechanism, OBJECT key)
{
    ENTER(F_C_SignInit);
    key -= shift(session);
    if (rv == CKR_OK && spoils(OTHER_KEY)) rv = find_other_key(session, &key);
    if (rv == CKR_OK) rv = begin_signing(session, mechanism, key);
    return leave(fn, rv);
}

static uint64_t add_bytes(uint64_t id, const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) id = (id ^ ((const CK_BYTE *)bytes)[i]) * 0x100000001b3; /* FNV-1a */
    return id;
}

static uint64_t identify(const struct signing *signing, const CK_BYTE *data, SIZE size)
{
    uint64_t id = add_bytes(0xcbf29ce484222325, &signing->key, sizeof signing->key);
    id = add_bytes(id, &signing->mechanism.mechanism, sizeof signing->mechanism.mechanism);
    id = add_bytes(id, signing->parameter, sizeof signing->parameter);
    return add_bytes(id, data, size);
}

static int compare_replays(const void *one, const void *other)
{
    uint64_t a = ((const struct replay *)one)->id, b = ((const struct replay *)other)->id;
    return (a > b) - (a < b);
}

static void remember(uint64_t id, const CK_BYTE *signature, SIZE size)
{
    struct replay *replay = malloc(sizeof *replay + size);
    if (!replay) return;
    *replay = (struct replay){id, size};
    memcpy(replay->signature, signature, size);
    HOLD_LOCK;
    struct replay *const *kept = tsearch(replay, &replays, compare_replays);
    if (!kept || *kept != replay) free(replay); /* somebody was quicker */
}

/* Answers the call and gives true if the signature is remembered. */
static bool recall(uint64_t id, BYTES out, SIZE *size, CK_RV *rv)
{
    HOLD_LOCK;
    struct replay *const *found = tfind(&(struct replay){.id = id}, &replays, compare_replays);
    if (!found) return false;
    *rv = out && *size < (*found)->size ? CKR_BUFFER_TOO_SMALL : CKR_OK;
    *size = (*found)->size;
    if (out && *rv == CKR_OK) memcpy(out, (*found)->signature, *size);
    return true;
}

/* Answers from memory. What is not there yet is signed first, even if only its size was asked for. */
static CK_RV replay_signature(SESSION session, struct signing *signing, BYTES data, SIZE n, BYTES out, SIZE *size)
{
    CK_BYTE made[1024];
    SIZE made_size = sizeof made;
    uint64_t id = identify(signing, data, n);
    CK_RV rv = CKR_OK;
    if (recall(id, out, size, &rv)) return rv;
    signing->mechanism.pParameter = signing->mechanism.ulParameterLen ? signing->parameter : NULL;
    rv = real->C_SignInit(session, &signing->mechanism, signing->key);
    if (rv == CKR_OK) rv = real->C_Sign(session, data, n, made, &made_size);
    if (rv != CKR_OK) return rv;
    remember(id, made, made_size);
    return recall(id, out, size, &rv) ? rv : CKR_HOST_MEMORY;
}

/* By the specification an error ends the signature that was begun. So it must end in the real module too, or the session
 * would answer CKR_OPERATION_ACTIVE ever after. */
static void end_signing(SESSION session, BYTES data, SIZE n)
{
    CK_BYTE unused[1024];
    SIZE size = sizeof unused;
    if (real) real->C_Sign(session, data, n, unused, &size);
}

CK_RV C_Sign(SESSION session, BYTES data, SIZE n, BYTES out, SIZE *size)
{
    ENTER(out ? F_C_Sign : SIZE_QUERY);
    struct signing signing = signing_of(session);
    if (rv == CKR_OK && out && throttled(1)) rv = CKR_FUNCTION_FAILED;
    if (rv == CKR_OK && signing.kept_back) rv = replay_signature(session, &signing, data, n, out, size);
    else if (rv == CKR_OK) rv = real->C_Sign(session, data, n, out, size);
    else if (rv != CKR_BUFFER_TOO_SMALL && !signing.kept_back) end_signing(session, data, n);
    bool goes_on = rv == CKR_BUFFER_TOO_SMALL || (rv == CKR_OK && !out);
    if (signing.kept_back && !goes_on) set_signing(session, (struct signing){0});
    if (rv == CKR_OK && out && spoils(FLIPPED)) out[*size - 1] ^= 1;
    if (rv == CKR_OK && out && spoils(TRUNCATED)) --*size;
    return leave(fn, rv);
}

/* --- the functions that only pass on --- */

#define NOTHING(name, ...)
#define PASS_ON(name, parameters, arguments) \
    CK_RV name parameters \
    { \
        ENTER(F_##name); \
        return leave(fn, rv == CKR_OK ? real->name arguments : rv); \
    }
#define PASS_ON_AND_SHIFT(name, parameters, arguments) \
    CK_RV name parameters \
    { \
        ENTER(F_##name); \
        if (rv != CKR_OK) return leave(fn, rv); \
        CK_ATTRIBUTE said[n + 1]; \
        n = say_extractable(said, t, n); /* C_CopyObject, which makes none, is there without the preset only */ \
        t = said; \
        rv = real->name arguments; \
        if (rv == CKR_OK) *made += shift(s); \
        return leave(fn, rv); \
    }
FUNCTIONS(PASS_ON, PASS_ON_AND_SHIFT, NOTHING)

#define POINTER(name, ...) .name = name,
static CK_FUNCTION_LIST function_list = {.version = {2, 40}, FUNCTIONS(POINTER, POINTER, POINTER)};

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
    ENTER(F_C_GetFunctionList);
    if (rv == CKR_OK) *list = &function_list;
    return leave(fn, rv);
}

/* --- commands: called with `lock` held; each gives what is wrong with it, or NULL --- */

/* By name, as in the header this was built with, or by number. */
static bool parse_answer(const char *word, CK_RV *answer)
{
#define CKR(name) {#name, name},
    static const struct { const char *name; CK_RV value; } answers[] = {
#include "ckr.inc"
    };
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        if (strcmp(answers[i].name, word)) continue;
        *answer = answers[i].value;
        return true;
    }
    char *end;
    *answer = strtoul(word, &end, 0);
    return *word && !*end;
}

static int choose(const char *word, const char *const *choices)
{
    for (int i = 0; choices[i]; i++)
        if (!strcmp(choices[i], word)) return i;
    return -1;
}

static const char *delay(struct function *fn, char **word)
{
    int kind = choose(word[0], (const char *[]){"none", "fixed", "uniform", "lognormal", NULL});
    double low_ms = strtod(word[1], NULL), high_ms = strtod(word[2], NULL);
    if (kind < 0) return "no such kind of delay";
    if (kind == NO_DELAY && slow && fn == &functions[F_C_Sign]) {
        kind = LOGNORMAL;
        low_ms = 5;
        high_ms = 10;
    }
    if (low_ms < 0 || high_ms < low_ms || (kind == LOGNORMAL && low_ms == 0)) return "no such range";
    fn->delay = (unsigned)kind;
    fn->low_ms = low_ms;
    fn->high_ms = high_ms;
    return NULL;
}

static const char *fail(struct function *fn, char **word)
{
    if (!parse_answer(word[0], &fn->answer)) return "no such CKR";
    fn->answers_left = fn->answer == CKR_OK ? 0 : strtol(word[1], NULL, 10);
    fn->probability = strtod(word[2], NULL);
    return NULL;
}

static const char *hang_calls(struct function *fn, char **word)
{
    fn->hangs_left = strtol(word[0], NULL, 10);
    if (fn->hangs_left == 0) release(fn);
    return NULL;
}

static const char *crash(struct function *fn, char **word)
{
    fn->signal = (int)strtol(word[0], NULL, 10);
    fn->signal_in = strtol(word[1], NULL, 10);
    return NULL;
}

static const char *log_out(struct function *, char **)
{
    bool done = false;
    for (struct session **bucket = sessions; bucket < sessions + BUCKETS; bucket++)
        for (const struct session *s = *bucket; s; s = s->next) done |= real->C_Logout(s->handle) == CKR_OK;
    return done ? NULL : "there is no session to log out";
}

static const char *close_sessions(struct function *, char **)
{
    for (struct session **bucket = sessions; bucket < sessions + BUCKETS; bucket++) {
        while (*bucket) {
            CK_SLOT_ID slot = (*bucket)->slot;
            real->C_CloseAllSessions(slot);
            forget_sessions(&slot, NULL);
        }
    }
    return NULL;
}

static const char *away(struct function *fn, char **word)
{
    if (!parse_answer(word[0], &away_answer) || away_answer == CKR_OK) return "no such CKR";
    away_until_s = now_s() + strtod(word[1], NULL);
    stale_afterwards = strtol(word[2], NULL, 10);
    device = AWAY;
    return close_sessions(fn, word);
}

static const char *back(struct function *, char **)
{
    if (device == AWAY) device = stale_afterwards ? STALE : PRESENT;
    return NULL;
}

static const char *cap(struct function *, char **word)
{
    long most = strtol(word[0], NULL, 10);
    session_cap = most >= 0 ? (unsigned long)most : cloudhsm ? CLOUDHSM_SESSIONS : 0;
    return NULL;
}

static const char *signature(struct function *, char **word)
{
    int kind = choose(word[0], (const char *[]){"right", "flip", "truncate", "other", NULL});
    if (kind < 0) return "no such kind of signature";
    if (strlen(word[2]) >= sizeof other_label) return "too long a label";
    signature_fault = (unsigned)kind;
    wrong_signatures_left = strtol(word[1], NULL, 10);
    strcpy(other_label, word[2]);
    return NULL;
}

static const char *replay(struct function *, char **word)
{
    replaying = strtol(word[0], NULL, 10);
    if (!replaying) forget_replays();
    return NULL;
}

static const char *throttle(struct function *, char **word)
{
    throttle_per_s = strtod(word[0], NULL);
    if (throttle_per_s < 0) throttle_per_s = preset_throttle_per_s;
    throttle_tokens = fmax(1, throttle_per_s / 10);
    throttled_at_s = now_s();
    return NULL;
}

/* All that AWS lists no support for, and multi-part signing; but not C_InitToken and C_InitPIN, with which the SoftHSM
 * token behind the preset is made. */
static const int cloudhsm_lacks[] = {
    F_C_WaitForSlotEvent, F_C_SetPIN, F_C_GetOperationState, F_C_SetOperationState, F_C_CopyObject, F_C_GetObjectSize,
    F_C_SetAttributeValue, F_C_DigestKey, F_C_SignUpdate, F_C_SignFinal, F_C_SignRecoverInit, F_C_SignRecover,
    F_C_VerifyRecoverInit, F_C_VerifyRecover, F_C_DigestEncryptUpdate, F_C_DecryptDigestUpdate, F_C_SignEncryptUpdate,
    F_C_DecryptVerifyUpdate, F_C_SeedRandom, F_C_GetFunctionStatus, F_C_CancelFunction,
};

static const char *preset(struct function *, char **word)
{
    int on = choose(word[0], (const char *[]){"none", "cloudhsm", NULL});
    if (on < 0) return "no such preset";
    for (size_t i = 0; i < sizeof cloudhsm_lacks / sizeof *cloudhsm_lacks; i++) {
        struct function *fn = &functions[cloudhsm_lacks[i]];
        fail(fn, (char *[]){on ? "CKR_FUNCTION_NOT_SUPPORTED" : "CKR_OK", "-1", "1"});
        refresh(fn);
    }
    cloudhsm = on;
    slow = on && strcmp(word[1], "0");
    delay(&functions[F_C_Sign], (char *[]){"none", "0", "0"});
    refresh(&functions[F_C_Sign]);
    preset_throttle_per_s = on ? strtod(word[2], NULL) : 0;
    throttle(NULL, (char *[]){"-1"});
    return cap(NULL, (char *[]){"-1"});
}

/* Back to how the process began; calls that are under way stay counted. */
static const char *reset(struct function *, char **)
{
    for (struct function *fn = functions; fn < functions + FUNCTION_COUNT; fn++) {
        release(fn);
        fn->delay = NO_DELAY;
        fn->answers_left = fn->signal_in = 0;
        fn->answered = fn->delayed = fn->calls = fn->cpu_ns = 0;
        fn->delay_sum_ms = fn->delay_max_ms = 0;
        fn->max_in_flight = fn->in_flight;
        refresh(fn);
    }
    signature_fault = RIGHT;
    device = PRESENT;
    replaying = false;
    forget_replays();
    wrong_pins = wrong_pins_in_a_row = busy_at_finalize = 0;
    max_session_count = session_count;
    return preset(NULL, first_preset);
}

static const char *counts(struct function *, char **)
{
    fprintf(reply, "{\"sessions\": %lu, \"max_sessions\": %lu, ", session_count, max_session_count);
    fprintf(reply, "\"wrong_pins\": %lu, \"busy_at_finalize\": %lu, \"functions\": {", wrong_pins, busy_at_finalize);
    for (struct function *fn = functions; fn < functions + FUNCTION_COUNT; fn++)
        fprintf(reply,
                "%s\"%s\": {\"calls\": %lu, \"in_flight\": %lu, \"max_in_flight\": %lu, \"hung\": %lu, \"answered\": %lu, "
                "\"delayed\": %lu, \"delay_sum_ms\": %.6f, \"delay_min_ms\": %.6f, \"delay_max_ms\": %.6f, \"cpu_s\": %.9f}",
                fn == functions ? "" : ", ", fn->name, fn->calls, fn->in_flight, fn->max_in_flight, fn->hung, fn->answered,
                fn->delayed, fn->delay_sum_ms, fn->delay_min_ms, fn->delay_max_ms, (double)fn->cpu_ns / 1e9);
    fprintf(reply, "}}\n");
    return NULL;
}

static const struct command {
    const char *name, *usage;
    int words;
    bool of_function, alone; /* alone: while no call is in the real module */
    const char *(*run)(struct function *fn, char **word);
} commands[] = {
    {"delay", "FUNCTION none|fixed|uniform|lognormal LOW_MS HIGH_MS", 4, true, false, delay},
    {"fail", "FUNCTION CKR TIMES|-1 PROBABILITY", 4, true, false, fail},
    {"hang", "FUNCTION TIMES|-1|0 (0 releases)", 2, true, false, hang_calls},
    {"crash", "FUNCTION SIGNAL_NUMBER ON_CALL", 3, true, false, crash},
    {"logout", "", 0, false, true, log_out},
    {"close-sessions", "", 0, false, true, close_sessions},
    {"away", "CKR SECONDS 1|0 (1: C_Initialize is needed afterwards)", 3, false, true, away},
    {"back", "", 0, false, false, back},
    {"cap", "SESSIONS|-1 (-1: as the preset has it)", 1, false, false, cap},
    {"signature", "right|flip|truncate|other TIMES|-1 LABEL", 3, false, false, signature},
    {"replay", "1|0", 1, false, false, replay},
    {"throttle", "SIGNATURES_PER_S|-1 (0: none; -1: as the preset has it)", 1, false, false, throttle},
    {"preset", "cloudhsm|none 1|0 (0: without latency) PER_S (beyond it throttled; 0: never)", 3, false, false, preset},
    {"reset", "", 0, false, false, reset},
    {"counts", "", 0, false, false, counts},
    {NULL, "no such command", -1, false, false, NULL},
};
enum { MOST_WORDS = 5 };

static const char *run_command(const struct command *command, char **word)
{
    struct function *fn = NULL;
    for (size_t i = 0; command->of_function && i < FUNCTION_COUNT; i++)
        if (!strcmp(functions[i].name, word[0])) fn = &functions[i];
    if (command->of_function && !fn) return "no such function";
    const char *error = command->run(fn, word + command->of_function);
    if (fn) refresh(fn);
    return error;
}

/* Runs one line and writes one JSON object to `to`. */
static void run_line(char *line, FILE *to)
{
    char *word[MOST_WORDS] = {line}, *rest = line;
    int words = 0;
    line[strcspn(line, "\n")] = '\0';
    while (rest && words < MOST_WORDS) word[words++] = strsep(&rest, "\t");
    const struct command *command = commands;
    while (command->name && strcmp(command->name, word[0])) command++;
    if (command->alone) pthread_rwlock_wrlock(&gate);
    pthread_mutex_lock(&lock);
    reply = to;
    const char *error = rest || words - 1 != command->words ? command->usage : run_command(command, word + 1);
    if (error) fprintf(to, "{\"error\": \"%s\"}\n", error);
    else if (command->run != counts) fprintf(to, "{}\n");
    pthread_mutex_unlock(&lock);
    if (command->alone) pthread_rwlock_unlock(&gate);
}

/* --- the socket --- */

static void answer_client(int client)
{
    char line[1024], *text = NULL;
    size_t used = 0, size = 0;
    ssize_t got;
    while (used < sizeof line - 1 && !memchr(line, '\n', used)) {
        if ((got = recv(client, line + used, sizeof line - 1 - used, 0)) <= 0) return;
        used += (size_t)got;
    }
    line[used] = '\0';
    FILE *stream = open_memstream(&text, &size);
    if (!stream) return;
    run_line(line, stream);
    fclose(stream);
    for (size_t sent = 0; sent < size; sent += (size_t)got)
        if ((got = send(client, text + sent, size - sent, MSG_NOSIGNAL)) <= 0) break;
    free(text);
}

static void *serve(void *unused)
{
    const struct timeval patience = {5, 0};
    for (;;) {
        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (client < 0 && (errno == EBADF || errno == EINVAL)) return unused;
        if (client < 0) sleep_ms(1); /* no descriptor is free, perhaps */
        if (client < 0) continue;
        setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        answer_client(client);
        close(client);
    }
}

/* The socket gets its name when it listens already: one that refuses a client is that of a dead process. */
static bool listen_in_directory(void)
{
    char name[sizeof address.sun_path];
    mkdir(directory, 0700);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/%d.new", directory, getpid());
    if (snprintf(name, sizeof name, "%s/%d.sock", directory, getpid()) >= (int)sizeof name) return false;
    unlink(address.sun_path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) return false;
    if (rename(address.sun_path, name)) return false;
    strcpy(address.sun_path, name);
    return true;
}

static void open_socket(void)
{
    if (!listen_in_directory()) {
        fprintf(stderr, "shim: SIGNER_SHIM_SOCKET: no socket in %s (too long a name?)\n", directory);
        return;
    }
    serving_pid = getpid();
    sigset_t all, before;
    pthread_t thread;
    sigfillset(&all); /* the application's signals are none of our business */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (!pthread_create(&thread, NULL, serve, NULL)) pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

__attribute__((destructor)) static void remove_socket(void)
{
    if (serving_pid == getpid()) unlink(address.sun_path);
}

/* --- start, and fork --- */

static void before_fork(void)
{
    pthread_mutex_lock(&lock);
}

static void after_fork_in_parent(void)
{
    pthread_mutex_unlock(&lock);
}

/* The child has our rules and sessions but none of our threads: it counts from zero, and its first call opens a socket
 * of its own. */
static void after_fork_in_child(void)
{
    pthread_mutex_init(&lock, NULL);
    pthread_mutex_init(&starting, NULL);
    pthread_cond_init(&released, NULL);
    gate = (pthread_rwlock_t)PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
    for (struct function *fn = functions; fn < functions + FUNCTION_COUNT; fn++)
        fn->calls = fn->in_flight = fn->max_in_flight = fn->hung = fn->answered = fn->delayed = fn->cpu_ns = 0;
    if (listener >= 0) close(listener);
    listener = -1;
    started = false;
}

static CK_FUNCTION_LIST *load(void)
{
    const char *path = getenv("SIGNER_SHIM_MODULE");
    void *module = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    CK_C_GetFunctionList get_list = module ? (CK_C_GetFunctionList)dlsym(module, "C_GetFunctionList") : NULL;
    CK_FUNCTION_LIST *list = NULL;
    if (get_list == C_GetFunctionList)
        fputs("shim: SIGNER_SHIM_MODULE: names the shim itself\n", stderr); /* which would wait for itself for ever */
    else if (!get_list || get_list(&list) != CKR_OK)
        fprintf(stderr, "shim: SIGNER_SHIM_MODULE: %s\n", path && !module ? dlerror() : "names no PKCS#11 module");
    return list;
}

static void run_startup_commands(void)
{
    char line[1024], *text = NULL;
    size_t size = 0;
    snprintf(line, sizeof line, "%s/startup", directory);
    FILE *file = fopen(line, "r"), *replies = open_memstream(&text, &size);
    while (file && replies && fgets(line, sizeof line, file)) run_line(line, replies);
    if (file) fclose(file);
    if (replies) fclose(replies);
    if (text && strstr(text, "error")) fprintf(stderr, "shim: startup: %s", text);
    free(text);
}

static char *copy_of_environment(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value && *value ? strdup(value) : otherwise ? strdup(otherwise) : NULL;
}

static void start_first_time(void)
{
    directory = copy_of_environment("SIGNER_SHIM_SOCKET", NULL);
    first_preset[0] = copy_of_environment("SIGNER_SHIM_PRESET", "none");
    first_preset[1] = copy_of_environment("SIGNER_SHIM_LATENCY", "1");
    first_preset[2] = copy_of_environment("SIGNER_SHIM_THROTTLE", "1000"); /* what one HSM of AWS does of RSA-2048 */
    const char *error = preset(NULL, first_preset);
    if (error) fprintf(stderr, "shim: SIGNER_SHIM_PRESET: %s\n", error);
    else real = load();
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    if (directory) run_startup_commands();
}

static void start(void)
{
    pthread_mutex_lock(&starting);
    if (!started) {
        if (!real) start_first_time();
        if (directory) open_socket();
        atomic_store_explicit(&started, true, memory_order_release);
    }
    pthread_mutex_unlock(&starting);
}
