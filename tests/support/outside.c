/* Preloaded into a process and its children: writes to the file $OUTSIDE_LOG every name that is
   looked up and every address beyond loopback that is connected or sent to, from Python or C. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void note(const char *what, const char *value) {
  const char *path = getenv("OUTSIDE_LOG");
  char line[512];
  int file = path ? open(path, O_WRONLY | O_APPEND | O_CREAT, 0600) : -1;
  if (file < 0) return;
  int length = snprintf(line, sizeof line, "%s %s\n", what, value ? value : "-");
  if (write(file, line, length) < 0) { /* nobody to tell */ }
  close(file);
}

static void note_address(const char *what, const struct sockaddr *address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address == NULL) return;
  if (address->sa_family == AF_INET) {
    const struct sockaddr_in *in = (const void *)address;
    inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
    if ((ntohl(in->sin_addr.s_addr) >> 24) == 127 && ntohs(in->sin_port) != 53) return;
  } else if (address->sa_family == AF_INET6) {
    const struct sockaddr_in6 *in = (const void *)address;
    inet_ntop(AF_INET6, &in->sin6_addr, text, sizeof text);
    if (IN6_IS_ADDR_LOOPBACK(&in->sin6_addr)) return;
    if (!strncmp(text, "::ffff:127.", 11)) return;
  } else {
    return;
  }
  note(what, text);
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
  REAL(getaddrinfo);
  note("name", node);
  return real(node, service, hints, found);
}

struct hostent *gethostbyname(const char *name) {
  REAL(gethostbyname);
  note("name", name);
  return real(name);
}

struct hostent *gethostbyname2(const char *name, int family) {
  REAL(gethostbyname2);
  note("name", name);
  return real(name, family);
}

int gethostbyname_r(const char *name, struct hostent *ret, char *buf, size_t size,
                    struct hostent **result, int *error) {
  REAL(gethostbyname_r);
  note("name", name);
  return real(name, ret, buf, size, result, error);
}

int connect(int fd, const struct sockaddr *address, socklen_t length) {
  REAL(connect);
  note_address("address", address);
  return real(fd, address, length);
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address,
               socklen_t length) {
  REAL(sendto);
  note_address("address", address);
  return real(fd, data, size, flags, address, length);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  REAL(sendmsg);
  note_address("address", message->msg_name);
  return real(fd, message, flags);
}
