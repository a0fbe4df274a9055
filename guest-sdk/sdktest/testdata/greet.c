#include <circles.h>

CIRCLES_ENTRY(run) {
  circles_bytes card;
  circles_error err;
  if (!circles_read(circles_caller(), "/card.txt", &card, &err))
    return circles_fail_error(&err);
  return circles_ok(card.data, card.len);
}
