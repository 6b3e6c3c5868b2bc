// The flannel CNI plugin, in a module of its own: its source went out of containernetworking/plugins after v0.9.1, and
// the main toolchain module needs v1.x of that same module path (Go takes one version of a module per build list).
// It speaks CNI up to 0.4.0, so flannel's conflist must say "cniVersion": "0.4.0".
module stackbook.dev/toolchain/cni

go 1.26.0

tool github.com/containernetworking/plugins/plugins/meta/flannel

require (
	github.com/Microsoft/go-winio v0.4.11 // indirect
	github.com/Microsoft/hcsshim v0.8.6 // indirect
	github.com/buger/jsonparser v0.0.0-20180808090653-f4dd9f5a6b44 // indirect
	github.com/containernetworking/cni v0.8.1 // indirect
	github.com/containernetworking/plugins v0.9.1 // indirect
	github.com/sirupsen/logrus v1.0.6 // indirect
	golang.org/x/crypto v0.0.0-20200622213623-75b288015ac9 // indirect
	golang.org/x/sys v0.0.0-20201117170446-d9b008d0a637 // indirect
)
