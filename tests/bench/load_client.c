/* Load client: many Server-Sent Events connections on one epoll loop, counting what arrives.
 *
 *   load_client PORT TARGETS [SAMPLE [marks]]
 *
 * TARGETS is a file of lines `path`, or `path` and headers, separated by tabs; connection i uses line i modulo the
 * count. Every SAMPLE-th connection (default 1) also measures latency, from a mark `t=<CLOCK_REALTIME nanoseconds>;`
 * inside the event. With `marks` every connection looks for marks, and they are counted instead of lines `id:`, so that
 * several chunks of text in one event count as several. A mark may then have its number in the stream,
 * `t=<nanoseconds>.<number>;`: each number that is not the last one + 1 is counted as an error.
 *
 * Commands on stdin, one line each; each is answered by one line of JSON on stdout:
 *   pace N        from now on at most N connections are being opened at a time (128 at first)
 *   open N [K]    open N connections more; answers when each has its response head, or failed; with K, then as `await`
 *                 does, 60 s long, and `heads` tells when all had their response head
 *   snap          counters so far, and the latency since the last snap
 *   zero          per-connection event counts start again at 0
 *   await K S     answers when each connection has K events since the last zero/resume, at most S seconds later, with
 *                 the least and the most that one has, and the errors in the numbers since then
 *   drop          close every connection
 *   resume        reopen every connection with the Last-Event-ID it saw; answers when each has its response head
 *   quit
 *
 * Otherwise an event is a line that starts with `id:`. One read(2) per wake-up and connection, one buffer for all connections.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 16384, BUFFER = 1 << 18, ID_MAX = 48, MARK_MAX = 40, STEPS = 64, BUCKETS = 40 * STEPS };

typedef struct {
    int fd;              /* -1: closed */
    int connecting;      /* head not complete yet */
    int head_matched;    /* how much of \r\n\r\n was just seen */
    int status;          /* HTTP status, once known */
    int line_matched;    /* how much of "\nid:" was just seen; 4: inside the id */
    int id_length;
    uint64_t events;
    int64_t number;      /* of the next mark */
    int tail_length;     /* of what may be the begin of a mark that the last read cut */
    char id[ID_MAX];     /* last complete id */
    char partial[ID_MAX];
    char tail[MARK_MAX];
} connection;

static connection connections[MAX_CONNECTIONS];
static int connection_count, next_to_open, open_until, in_flight, opened, failed, closed_by_server, resuming;
static int in_flight_most = 128;
static char **targets;
static int target_count, sample = 1, count_marks;
static struct sockaddr_in server, source;
static int epoll_fd;
static uint64_t total_events, total_bytes, total_reads, histogram[BUCKETS], latency_count, latency_max,
    errors;
static double phase_started;
static char buffer[MARK_MAX + BUFFER]; /* a read begins at MARK_MAX; before it is what the last one cut */

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double cpu_seconds(void) { return now(CLOCK_PROCESS_CPUTIME_ID); }

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* --- latency histogram: microseconds, STEPS buckets per power of two -------------------------------------------- */

static void observe(uint64_t microseconds) {
    int power = microseconds < STEPS ? 0 : 63 - __builtin_clzll(microseconds) - 5;
    int bucket = power == 0 ? (int)microseconds : power * STEPS + (int)((microseconds >> (power - 1)) & (STEPS - 1));
    histogram[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    latency_count++;
    if (microseconds > latency_max) latency_max = microseconds;
}

static double bucket_value(int bucket) {
    int power = bucket / STEPS, step = bucket % STEPS;
    return power == 0 ? step : (double)(((uint64_t)STEPS | step) << (power - 1));
}

static double quantile(double q) {
    uint64_t seen = 0;
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += histogram[i]) > q * latency_count) return bucket_value(i);
    return 0;
}

/* Read the marks in `data`, of which `c->tail_length` bytes before it belong to it; keep what may be a cut one. */
static void read_marks(connection *c, int sampled, const char *data, const char *end) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    int64_t at = t.tv_sec * 1000000000LL + t.tv_nsec;
    data -= c->tail_length;
    memcpy((char *)data, c->tail, c->tail_length);
    const char *found = data;
    while ((found = memmem(found, end - found, "t=1", 3)) != NULL) {
        char *stop;
        found += 2;
        if (end - found < MARK_MAX && !memchr(found, ';', end - found)) break; /* the end of this read cuts it */
        int64_t sent = strtoll(found, &stop, 10), number = -1;
        if (stop - found == 19 && *stop == '.') number = strtoll(stop + 1, &stop, 10);
        if (stop - found < 19 || *stop != ';') continue;
        if (number >= 0 && number != c->number++) {
            errors++;
            c->number = number + 1;
        }
        if (count_marks) {
            c->events++;
            total_events++;
        }
        if (sampled && at >= sent) observe((at - sent) / 1000);
        data = found = stop;
    }
    c->tail_length = end - data < MARK_MAX ? end - data : MARK_MAX - 1;
    memcpy(c->tail, end - c->tail_length, c->tail_length);
}

/* --- connections ------------------------------------------------------------------------------------------------ */

static void forget(connection *c) {
    if (c->connecting) in_flight--;
    close(c->fd);
    c->fd = -1;
    c->connecting = 0;
}

static void send_request(connection *c, int index) {
    char request[4096], resume[96] = "";
    char *path = targets[index % target_count], *tab = strchr(path, '\t');
    int path_length = tab ? (int)(tab - path) : (int)strlen(path);
    char headers[3072];
    int used = 0;
    for (char *h = tab; h && *h && used < (int)sizeof headers - 3; h++) {
        if (*h == '\t') used += h == tab ? 0 : sprintf(headers + used, "\r\n");
        else headers[used++] = *h;
    }
    headers[used] = 0;
    if (resuming && c->id[0]) snprintf(resume, sizeof resume, "Last-Event-ID: %s\r\n", c->id);
    int length = snprintf(request, sizeof request,
                          "GET %.*s HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n%s%s%s\r\n", path_length,
                          path, resume, headers, tab ? "\r\n" : "");
    if (send(c->fd, request, length, MSG_NOSIGNAL) != length) {
        failed++;
        forget(c);
    }
}

static void start(int index) {
    connection *c = &connections[index];
    char last[ID_MAX];
    memcpy(last, c->id, ID_MAX);
    memset(c, 0, sizeof *c);
    memcpy(c->id, last, ID_MAX);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    int one = 1;
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    bind(c->fd, (struct sockaddr *)&source, sizeof source);
    c->connecting = 1;
    in_flight++;
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS) {
        failed++;
        forget(c);
        return;
    }
    struct epoll_event event = {.events = EPOLLOUT, .data.u32 = index};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event);
}

static void open_more(void) {
    while (next_to_open < open_until && in_flight < in_flight_most) start(next_to_open++);
}

/* Skip the response head; the rest of `data` belongs to the body. */
static const char *read_head(connection *c, const char *data, const char *end) {
    if (!c->status && end - data > 12) c->status = atoi(data + 9);
    for (; data < end && c->head_matched < 4; data++) {
        if (*data == "\r\n\r\n"[c->head_matched]) c->head_matched++;
        else c->head_matched = *data == '\r';
    }
    if (c->head_matched == 4) {
        c->connecting = 0;
        in_flight--;
        if (c->status == 200) opened++;
        else failed++;
        c->line_matched = 0;
    }
    return data;
}

static void read_body(connection *c, const char *data, const char *end) {
    while (data < end) {
        if (c->line_matched == 4) {
            if (*data == '\n') {
                memcpy(c->id, c->partial, ID_MAX);
                c->id[c->id_length] = 0;
                if (!count_marks) {
                    c->events++;
                    total_events++;
                }
                c->line_matched = 1; /* this line end may begin the next match */
            } else if (*data != ' ' && *data != '\r' && c->id_length < ID_MAX - 1) {
                c->partial[c->id_length++] = *data;
            }
            data++;
        } else if (c->line_matched == 0) {
            data = memchr(data, '\n', end - data);
            if (!data) return;
            c->line_matched = 1;
            data++;
        } else if (*data == "\nid:"[c->line_matched]) {
            if (++c->line_matched == 4) c->id_length = 0;
            data++;
        } else {
            c->line_matched = 0; /* the same byte is looked at again: it may be a line end */
        }
    }
}

static void on_event(int index, uint32_t flags) {
    connection *c = &connections[index];
    if (c->fd < 0) return;
    if (flags & EPOLLOUT) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
        send_request(c, index);
        return;
    }
    ssize_t got = read(c->fd, buffer + MARK_MAX, BUFFER);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        if (c->connecting) failed++;
        else closed_by_server++;
        forget(c);
        return;
    }
    total_bytes += got;
    total_reads++;
    const char *data = buffer + MARK_MAX, *end = data + got;
    if (c->connecting) data = read_head(c, data, end);
    if (data < end) {
        read_body(c, data, end);
        if (count_marks || index % sample == 0) read_marks(c, index % sample == 0, data, end);
    }
}

/* --- commands --------------------------------------------------------------------------------------------------- */

static enum { IDLE, OPENING, AWAITING } waiting;
static uint64_t await_events, open_events;
static double await_until, heads;

static void begin_opening(int until) {
    open_until = until < MAX_CONNECTIONS ? until : MAX_CONNECTIONS;
    opened = failed = 0;
    phase_started = now(CLOCK_MONOTONIC);
    waiting = OPENING;
}

static void drop_all(void) {
    for (int i = 0; i < connection_count; i++)
        if (connections[i].fd >= 0) forget(&connections[i]);
}

static void zero(void) {
    for (int i = 0; i < connection_count; i++) connections[i].events = connections[i].number = 0;
    errors = 0;
    phase_started = now(CLOCK_MONOTONIC);
}

static void print_snap(void) {
    printf("{\"events\":%lu,\"bytes\":%lu,\"reads\":%lu,\"cpu\":%.6f,\"wall\":%.6f,\"closed\":%d,"
           "\"samples\":%lu,\"p50_us\":%.0f,\"p99_us\":%.0f,\"p999_us\":%.0f,\"max_us\":%lu}\n",
           total_events, total_bytes, total_reads, cpu_seconds(), now(CLOCK_MONOTONIC), closed_by_server, latency_count,
           quantile(0.5), quantile(0.99), quantile(0.999), latency_max);
    memset(histogram, 0, sizeof histogram);
    latency_count = latency_max = 0;
}

static void command(const char *line) {
    int number = 0, more = 0;
    double seconds = 0;
    if (sscanf(line, "open %d %d", &number, &more) >= 1) {
        open_events = more;
        connection_count = connection_count + number < MAX_CONNECTIONS ? connection_count + number : MAX_CONNECTIONS;
        begin_opening(connection_count);
    } else if (sscanf(line, "await %d %lf", &number, &seconds) == 2) {
        await_events = number;
        await_until = now(CLOCK_MONOTONIC) + seconds;
        waiting = AWAITING;
    } else if (!strncmp(line, "resume", 6)) {
        resuming = 1;
        open_events = 0;
        next_to_open = 0;
        begin_opening(connection_count);
    } else if (sscanf(line, "pace %d", &number) == 1) {
        in_flight_most = number;
        printf("{}\n");
    } else if (!strncmp(line, "snap", 4)) {
        print_snap();
    } else if (!strncmp(line, "zero", 4)) {
        zero();
        printf("{}\n");
    } else if (!strncmp(line, "drop", 4)) {
        drop_all();
        printf("{}\n");
    } else {
        exit(0);
    }
}

static void check_waiting(void) {
    double t = now(CLOCK_MONOTONIC);
    if (waiting == OPENING) {
        open_more();
        if (next_to_open < open_until || in_flight) return;
        if (open_events && !failed) {
            heads = t - phase_started;
            await_events = open_events;
            await_until = t + 60;
            waiting = AWAITING;
            check_waiting();
            return;
        }
        printf("{\"opened\":%d,\"failed\":%d,\"seconds\":%.6f}\n", opened, failed, t - phase_started);
        waiting = IDLE;
    } else if (waiting == AWAITING) {
        uint64_t least = UINT64_MAX, most = 0;
        for (int i = 0; i < connection_count; i++) {
            uint64_t events = connections[i].events;
            if (events < least) least = events;
            if (events > most) most = events;
            if (least < await_events && t < await_until) return;
        }
        printf("{\"done\":%s,\"least\":%lu,\"most\":%lu,\"errors\":%lu,\"heads\":%.6f,\"seconds\":%.6f}\n",
               least >= await_events ? "true" : "false", least, most, errors, heads, t - phase_started);
        waiting = IDLE;
    }
}

static void read_targets(const char *path) {
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t room = 0;
    if (!file) die(path);
    targets = calloc(MAX_CONNECTIONS, sizeof *targets);
    while (target_count < MAX_CONNECTIONS && getline(&line, &room, file) > 0) {
        line[strcspn(line, "\n")] = 0;
        targets[target_count++] = strdup(line);
    }
    fclose(file);
    if (!target_count) exit(2);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    setvbuf(stdout, NULL, _IOLBF, 0);
    read_targets(argv[2]);
    if (argc > 3) sample = atoi(argv[3]);
    count_marks = argc > 4;
    server.sin_family = source.sin_family = AF_INET;
    server.sin_port = htons(atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    /* A loopback address of its own: ports that another run left in TIME_WAIT do not matter. */
    source.sin_addr.s_addr = htonl(0x7f000002 + (getpid() % 65000) * 256);
    epoll_fd = epoll_create1(0);
    struct epoll_event events[1024], input = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &input);
    for (;;) {
        int count = epoll_wait(epoll_fd, events, 1024, waiting == AWAITING ? 5 : -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.u32 == UINT32_MAX) {
                char line[256];
                ssize_t got = read(0, line, sizeof line - 1);
                if (got <= 0) return 0;
                line[got] = 0;
                command(line);
            } else {
                on_event(events[i].data.u32, events[i].events);
            }
        }
        check_waiting();
    }
}
