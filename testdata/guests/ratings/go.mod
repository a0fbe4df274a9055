module github.com/circles-host/circles/testdata/guests/ratings

go 1.24

require github.com/circles-host/circles/guest-sdk/go v0.0.0

replace github.com/circles-host/circles/guest-sdk/go => ../../../guest-sdk/go
