// sleep sleeps for an hour: a deadline must end what waits, too.
package main

import "time"

func main() { time.Sleep(time.Hour) }
