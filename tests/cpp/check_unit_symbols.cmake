# cmake -DNM=nm -DUNIT=float32_avx512 -DOBJECTS=a.o;b.o -P check_unit_symbols.cmake
#
# The object files of one unit must not define
#  - a weak symbol outside squeezebert::ISA: of all weak definitions of one name the linker keeps any one, so an inline
#    std::max compiled here with AVX-512 could become everybody's;
#  - a static constructor: it would run at load time, on a CPU that may lack its instructions.
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} --defined-only --format=posix ${object} OUTPUT_VARIABLE symbols
                  COMMAND_ERROR_IS_FATAL ANY)
  string(LENGTH ${UNIT} length)
  set(own "^_Z+[A-Z]*NK?11squeezebert${length}${UNIT}")
  string(REGEX MATCHALL "[^\n]+" lines "${symbols}")
  foreach(line IN LISTS lines)
    string(REGEX MATCH "^([^ ]+) ([A-Za-z])" _ "${line}")
    set(name "${CMAKE_MATCH_1}")
    set(type "${CMAKE_MATCH_2}")
    if(type MATCHES "[WwVvu]" AND NOT name MATCHES "${own}")
      message(SEND_ERROR "${object} defines the weak symbol ${name} outside squeezebert::${UNIT}")
    endif()
    if(name MATCHES "^_GLOBAL__(sub_)?I_")
      message(SEND_ERROR "${object} has a static constructor, ${name}")
    endif()
  endforeach()
endforeach()
