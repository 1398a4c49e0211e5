# Run by `cmake --install` and cpack, with the prefix known: configuration, units, pkg-config file.
# $DESTDIR stands before every path that is written and in none that is written down.
set(prefix ${CMAKE_INSTALL_PREFIX})
set(etc /etc)
if(NOT prefix MATCHES "^/usr(/local)?$")
    set(etc ${prefix}/etc)
endif()

# put(DIRECTORY NAME TEXT): the file with this text.
function(put directory name text)
    file(WRITE ${SLUICE_MADE}/${name} "${text}")
    file(INSTALL ${SLUICE_MADE}/${name} DESTINATION ${directory}
        PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
endfunction()

# read(NAME FROM TO OUT): a file of conf/ with a text that must be in it replaced.
function(read name from to out)
    file(READ ${SLUICE_CONF}/${name} text)
    string(FIND "${text}" "${from}" at)
    if(at EQUAL -1)
        message(FATAL_ERROR "conf/${name} does not hold \"${from}\"")
    endif()
    string(REPLACE "${from}" "${to}" text "${text}")
    set(${out} "${text}" PARENT_SCOPE)
endfunction()

# An installed service does nothing until its owner has looked at the configuration.
if(EXISTS $ENV{DESTDIR}${etc}/sluice/sluice.conf)
    message(STATUS "Kept: $ENV{DESTDIR}${etc}/sluice/sluice.conf")
else()
    read(sluice.conf "\nllm_queue_enabled = true;" "\nllm_queue_enabled = false;" text)
    put(${etc}/sluice sluice.conf "${text}")
endif()

foreach(service sluice-broker sluice-worker)
    read(systemd/${service}.service "ExecStart=/usr/bin/" "ExecStart=${prefix}/${SLUICE_BINDIR}/" text)
    string(REPLACE "--config /etc/" "--config ${etc}/" text "${text}")
    put(${prefix}/lib/systemd/system ${service}.service "${text}")
endforeach()
read(systemd/sluice-broker.socket "[Socket]" "[Socket]" text)
put(${prefix}/lib/systemd/system sluice-broker.socket "${text}")

put(${prefix}/${SLUICE_LIBDIR}/pkgconfig sluice.pc "prefix=${prefix}
libdir=\${prefix}/${SLUICE_LIBDIR}
includedir=\${prefix}/${SLUICE_INCLUDEDIR}

Name: sluice
Description: client of the Sluice queue: hand LLM calls to it and get their answers
Version: ${SLUICE_VERSION}
Requires: msgpack
Cflags: -I\${includedir}/sluice
Libs: -L\${libdir} -lsluice -pthread
")
