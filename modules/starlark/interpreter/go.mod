module github.com/circles-host/circles/modules/starlark/interpreter

go 1.26.0

require (
	github.com/circles-host/circles/guest-sdk/go v0.0.0
	go.starlark.net v0.0.0-20260908191801-89a6a09411d5
)

require golang.org/x/sys v0.42.0 // indirect

replace github.com/circles-host/circles/guest-sdk/go => ../../../guest-sdk/go
