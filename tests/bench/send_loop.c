/* The floor: what it costs to send(2) the same bytes to N sockets, and nothing else.
 *
 *   send_loop FRAME_BYTES      prints its port, then obeys stdin:
 *   send RATE COUNT            COUNT events at RATE per second (0: at once), answered by {"sent":…,"cpu":…,"seconds":…}
 *
 * Any request gets a chunked text/event-stream head. A frame is FRAME_BYTES of SSE plus its chunk framing, with the
 * mark `t=<nanoseconds>;` that the load client reads. One thread; a full socket is waited for.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_VIEWERS = 16384 };
static int viewers[MAX_VIEWERS], viewer_count, frame_bytes;
static const char HEAD[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void send_all(int fd, const char *data, size_t length) {
    while (length) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            poll(&wait, 1, 1000);
        } else if (sent < 0) {
            return; /* gone */
        } else {
            data += sent;
            length -= sent;
        }
    }
}

static void admit(int listener) {
    char request[8192];
    int one = 1, fd = accept(listener, NULL, NULL);
    if (fd < 0 || viewer_count == MAX_VIEWERS) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (recv(fd, request, sizeof request, 0) <= 0) {
        close(fd);
        return;
    }
    send_all(fd, HEAD, sizeof HEAD - 1);
    viewers[viewer_count++] = fd;
}

static size_t make_frame(char *frame, long number) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    char *body = frame + sprintf(frame, "%x\r\n", frame_bytes);
    long long at = t.tv_sec * 1000000000LL + t.tv_nsec;
    int used = sprintf(body, "id: %lld-%ld\nevent: bench\ndata: t=%lld;", at / 1000000, number, at);
    memset(body + used, 'x', frame_bytes - used);
    memcpy(body + frame_bytes - 2, "\n\n\r\n", 4);
    return body + frame_bytes + 2 - frame;
}

static void send_events(double rate, long count) {
    char frame[65536];
    double began = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    for (long i = 0; i < count; i++) {
        double left = rate > 0 ? began + i / rate - now(CLOCK_MONOTONIC) : 0;
        if (left > 0) usleep(left * 1e6);
        size_t length = make_frame(frame, i + 1);
        for (int v = 0; v < viewer_count; v++) send_all(viewers[v], frame, length);
    }
    printf("{\"sent\":%ld,\"cpu\":%.6f,\"seconds\":%.6f}\n", count * viewer_count, now(CLOCK_PROCESS_CPUTIME_ID) - cpu,
           now(CLOCK_MONOTONIC) - began);
}

int main(int argc, char **argv) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    setvbuf(stdout, NULL, _IOLBF, 0);
    frame_bytes = argc > 1 ? atoi(argv[1]) : 270;
    if (frame_bytes < 128 || frame_bytes > 60000) return 2;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096)) return 1;
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("{\"port\":%d}\n", ntohs(address.sin_port));
    for (;;) {
        struct pollfd wait[2] = {{.fd = 0, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
        poll(wait, 2, -1);
        if (wait[1].revents) admit(listener);
        if (wait[0].revents) {
            char line[256];
            double rate;
            long count;
            ssize_t got = read(0, line, sizeof line - 1);
            if (got <= 0) return 0;
            line[got] = 0;
            if (sscanf(line, "send %lf %ld", &rate, &count) == 2) send_events(rate, count);
        }
    }
}
