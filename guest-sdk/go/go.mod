module github.com/circles-host/circles/guest-sdk/go

go 1.24
